// Package api holds the public JSON types: what the command line, the clp
// names, other clusters and scripts read and write.
package api
