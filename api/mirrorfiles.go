package api

import (
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// MirrorKeepLimit is how long whoever asks for a copy to be kept, or given up, waits
// for that at most: all that is on it may have to be read.
const MirrorKeepLimit = 30 * time.Minute

// MostMirrorFiles is how many files MirrorFiles names at most.
const MostMirrorFiles = 20

// MirrorFiles says which files of a copy have changed, by a look at its file
// system that writes nothing.
type MirrorFiles struct {
	Node  cluster.NodeName `json:"node"`
	Since time.Time        `json:"since,omitzero"` // what changed later is told; zero: everything
	Files []MirrorFile     `json:"files"`          // the newest first
	More  int              `json:"more,omitempty"` // how many have changed beside Files
	Text  string           `json:"text,omitempty"` // why nothing can be seen, or what may be missing; lower case
}

// MirrorFile is a file or a directory of a copy.
type MirrorFile struct {
	Path string    `json:"path"` // below the mount point; of a directory with / at its end; quoted as in Go where not all of it can be printed
	Time time.Time `json:"time"` // of its last change
	Size int64     `json:"size"` // bytes
}
