// Package wire is what goes over the link between the two copies of a mirror
// disk: frames of a header and a payload, and the payloads that are more than
// blocks of the disk. It sends and receives nothing itself.
//
// The link below is authenticated and keeps the bytes as they are, so there is no
// checksum. It does not make the other copy free of bugs: every length is checked
// before it is used, and nothing is allocated beyond a bound. An error of a
// decoder ends the connection. docs/mirror-format.md has every byte.
package wire
