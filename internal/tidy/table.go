package tidy

import "strings"

const module = "github.com/tasuki-ha/tasuki"

// A layer is where a package stands. Imports go to the same layer or down.
type layer int

const (
	words  layer = iota // names and values, no behavior
	pure                // decisions: values in, values out
	motor               // one goroutine that owns the state
	edge                // all input and output, and the tools for it
	wiring              // what puts the parts together and speaks to people
	checks              // simulators and tests; nothing imports them
	unknown
)

func (l layer) String() string {
	return [...]string{"words", "pure", "motor", "edge", "wiring", "checks", "unknown"}[l]
}

// layers names every package of the module. A trailing slash stands for the
// packages below. A new package needs a line here: decide where it stands.
var layers = map[string]layer{
	"api": words, "internal/cluster": words, "internal/config": words, "internal/config/draft": words, "internal/paths": words,
	// files that are built in, with the one Go file that embeds them
	"lab": words, "examples": words, "schemas": words, "scenarios": words,

	"internal/admission": pure, "internal/agenda": pure, "internal/coordinator": pure, "internal/lease": pure, "internal/placement": pure,
	"internal/plan": pure, "internal/quorum": pure, "internal/recovery": pure, "internal/state": pure,
	"internal/verdict": pure, "internal/mirror/bitmap": pure, "internal/mirror/meta": pure, "internal/mirror/wire": pure,
	"internal/mirror/replica": pure,

	"internal/engine": motor, "internal/survival": motor, "internal/whatif": motor,

	"internal/client": edge, "internal/console": edge, "internal/fence": edge, "internal/guest": edge, "internal/heartbeat": edge,
	"internal/host": edge, "internal/httpapi": edge, "internal/identity": edge, "internal/journal": edge,
	"internal/lab": edge, "internal/metrics": edge, "internal/mirror": edge, "internal/mirror/": edge, "internal/monitor": edge,
	"internal/monitor/": edge, "internal/outlet": edge, "internal/peer": edge, "internal/request": edge, "internal/resource": edge,
	"internal/resource/": edge, "internal/script": edge, "internal/store": edge, "internal/watchdog": edge, "internal/witness": edge,
	"internal/host/": edge, "internal/httpapi/": edge, "internal/lab/": edge, "internal/lab/labcli": wiring,

	"cmd/": wiring, "internal/app": wiring, "internal/cli": wiring, "internal/clp": wiring,

	"internal/sim": checks, "internal/tidy": checks, "internal/mutants": checks, "internal/mirror/mirrortest": checks, "test/": checks,
}

// loopFiles are the only files of the motor that touch clock and goroutines.
var loopFiles = map[string]bool{"internal/engine/loop.go": true}

// longFunctions may be longer than maxFunction, each for the reason given. An
// entry whose function became short, or is gone, must go too.
var longFunctions = map[string]string{}

// maxFunction is how many lines a function may have, from its first to its
// closing brace.
const maxFunction = 70

// maxFile is how many bytes a file in the tree may have.
const maxFile = 300 << 10

// layerOf returns where a package stands; dir is its folder within the module.
func layerOf(dir string) layer {
	if l, ok := layers[dir]; ok {
		return l
	}
	for at := len(dir); at > 0; {
		at = strings.LastIndexByte(dir[:at], '/')
		if at < 0 {
			break
		}
		if l, ok := layers[dir[:at+1]]; ok {
			return l
		}
	}
	return unknown
}
