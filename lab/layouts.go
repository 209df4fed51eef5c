// Package layouts holds the layouts of labs that come with Tasuki.
package layouts

import "embed"

// Files are the shipped layouts: reference.yaml, other.yaml, three.yaml,
// witness.yaml, witnesses.yaml, single.yaml.
//
//go:embed *.yaml
var Files embed.FS
