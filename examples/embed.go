// Package examples holds the cluster files and scripts that the demo runs and
// that administrators start from.
package examples

import "embed"

// Files has the cluster files at its root and the scripts below scripts/.
//
//go:embed *.yaml scripts
var Files embed.FS
