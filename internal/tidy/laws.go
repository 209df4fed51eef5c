package tidy

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// laws is all of them.
var laws = []func(*Tree){
	lawLayers, lawPure, lawGlobals, lawBackground, lawPrograms, lawChannels, lawSleep,
	lawLength, lawPackageComment, lawDocumented, lawLeftovers, lawPlace, lawSize, lawModule,
}

// lawLayers: imports go down, and every package stands somewhere.
func lawLayers(t *Tree) {
	told := map[string]bool{}
	for _, f := range t.code {
		if f.layer == unknown && !told[f.dir] {
			told[f.dir] = true
			t.fail(f, 0, "layers", "package %s stands nowhere: add it to the table in internal/tidy/table.go", f.dir)
		}
		for _, im := range f.ast.Imports {
			p := importPath(im)
			if p == "C" {
				t.fail(f, t.line(im.Pos()), "layers", "cgo: the program is one static binary")
			}
			dir, ours := strings.CutPrefix(p, module+"/")
			if !ours || f.test {
				continue
			}
			if to := layerOf(dir); to > f.layer {
				t.fail(f, t.line(im.Pos()), "layers", "%s (%s) imports %s (%s): imports go down only", f.dir, f.layer, dir, to)
			}
		}
	}
}

// Imports and names that the pure part must not use: it gets time, randomness
// and the outside as values.
var (
	bannedImports = []string{
		"os", "os/", "io/ioutil", "net", "net/http", "net/http/", "net/rpc", "syscall", "log", "log/", "crypto/rand",
		"golang.org/x/sys/", "golang.org/x/net/", "runtime", "runtime/",
	}
	bannedTime = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}
	seededRand = []string{"New", "NewPCG", "NewChaCha8", "NewSource", "NewZipf", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}
)

// lawPure: words, decisions and the motor without its loop touch no clock, no
// socket, no file, no log, and start no goroutine.
func lawPure(t *Tree) {
	for _, f := range t.code {
		if f.test || f.layer > motor || loopFiles[f.path] {
			continue
		}
		for _, im := range f.ast.Imports {
			p := importPath(im)
			if slices.ContainsFunc(bannedImports, func(b string) bool {
				return p == b || strings.HasSuffix(b, "/") && strings.HasPrefix(p, b)
			}) {
				t.fail(f, t.line(im.Pos()), "pure", "imports %s", p)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.fail(f, t.line(g.Pos()), "pure", "starts a goroutine")
			}
			pkg, name, ok := f.callee(n)
			switch {
			case !ok:
			case pkg == "time" && slices.Contains(bannedTime, name):
				t.fail(f, t.line(n.Pos()), "pure", "uses time.%s: time arrives as a value", name)
			case strings.HasPrefix(pkg, "math/rand") && !slices.Contains(seededRand, name):
				t.fail(f, t.line(n.Pos()), "pure", "uses the global random source (rand.%s)", name)
			}
			return true
		})
	}
}

// lawGlobals: loggers are handed in, and only the wiring talks to the terminal.
func lawGlobals(t *Tree) {
	loud := []string{"Debug", "Info", "Warn", "Error", "Log", "Default", "SetDefault", "DebugContext", "InfoContext", "WarnContext", "ErrorContext"}
	for _, f := range t.code {
		if f.test || f.layer >= wiring {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			pkg, name, ok := f.callee(n)
			switch {
			case !ok:
			case pkg == "log/slog" && slices.Contains(loud, name), pkg == "log":
				t.fail(f, t.line(n.Pos()), "globals", "uses the global logger: take a *slog.Logger")
			case pkg == "fmt" && strings.HasPrefix(name, "Print"):
				t.fail(f, t.line(n.Pos()), "globals", "prints to the terminal (fmt.%s)", name)
			}
			return true
		})
	}
}

// lawBackground: contexts are handed down; they begin in main, the app and
// tests.
func lawBackground(t *Tree) {
	for _, f := range t.code {
		if f.test || f.layer == checks || strings.HasPrefix(f.path, "cmd/") || f.dir == "internal/app" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if pkg, name, ok := f.callee(n); ok && pkg == "context" && (name == "Background" || name == "TO"+"DO") {
				t.fail(f, t.line(n.Pos()), "background", "context.%s: take a context from the caller", name)
			}
			return true
		})
	}
}

// lawPrograms: no shell, and the lab and the door to the kernel run no other
// program but this one.
func lawPrograms(t *Tree) {
	shells := []string{"sh", "bash", "/bin/sh", "/bin/bash", "/usr/bin/env"}
	for _, f := range t.code {
		if f.test {
			continue
		}
		own := f.dir == "internal/lab" || f.dir == "internal/host"
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			pkg, name, _ := f.callee(call.Fun)
			at := slices.Index([]string{"Command", "CommandContext"}, name)
			if pkg != "os/exec" || at < 0 || at >= len(call.Args) {
				return true
			}
			prog, literal := literalString(call.Args[at])
			if literal && slices.Contains(shells, prog) {
				t.fail(f, t.line(call.Pos()), "programs", "runs a shell (%s)", prog)
			} else if literal && own && prog != "/proc/self/exe" {
				t.fail(f, t.line(call.Pos()), "programs", "runs %s: %s does its work itself", prog, f.dir)
			}
			return true
		})
	}
}

func literalString(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// lawChannels: a channel is a queue with a bound that somebody thought about.
func lawChannels(t *Tree) {
	const most = 1 << 16
	for _, f := range t.code {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "make" {
				return true
			}
			if _, ok := call.Args[0].(*ast.ChanType); !ok {
				return true
			}
			if lit, ok := call.Args[1].(*ast.BasicLit); ok {
				if size, err := strconv.ParseInt(lit.Value, 0, 64); err == nil && size > most {
					t.fail(f, t.line(call.Pos()), "channels", "a queue of %d is no bound", size)
				}
			}
			return true
		})
	}
}

// lawSleep: tests wait for what happens, not for time to pass.
func lawSleep(t *Tree) {
	for _, f := range t.code {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if pkg, name, ok := f.callee(n); ok && pkg == "time" && name == "Sleep" {
				t.fail(f, t.line(n.Pos()), "sleep", "time.Sleep in a test: use testing/synctest, a channel, or polling with a deadline")
			}
			return true
		})
	}
}

// lawLength: a function fits on a screen.
func lawLength(t *Tree) {
	used := map[string]bool{}
	for _, f := range t.code {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := t.line(fn.End()) - t.line(fn.Pos()) + 1
			name := f.dir + "." + receiver(fn) + fn.Name.Name
			if n <= maxFunction {
				continue
			}
			if used[name] = t.long[name] != ""; !used[name] {
				t.fail(f, t.line(fn.Pos()), "length", "%s has %d lines, more than %d", name, n, maxFunction)
			}
		}
	}
	for name := range t.long {
		if !used[name] {
			t.found = append(t.found, Finding{"internal/tidy/table.go", 0, "length", "the exception for " + name + " is not needed any more"})
		}
	}
}

// receiver returns "Type." for a method.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name + "."
		default:
			return ""
		}
	}
}

// lawPackageComment: every package says what it is.
func lawPackageComment(t *Tree) {
	said, first := map[string]bool{}, map[string]*file{}
	for _, f := range t.code {
		if f.test {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
		}
		said[f.dir] = said[f.dir] || f.ast.Doc.Text() != ""
	}
	for dir, f := range first {
		if !said[dir] {
			t.fail(f, 0, "package-comment", "package %s does not say what it is", dir)
		}
	}
}

// lawDocumented: what words and decisions export has a contract.
func lawDocumented(t *Tree) {
	for _, f := range t.code {
		if f.test || f.layer > pure {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				r := strings.TrimSuffix(receiver(d), ".")
				if d.Doc.Text() == "" && d.Name.IsExported() && (r == "" || ast.IsExported(r)) {
					t.fail(f, t.line(d.Pos()), "documented", "%s has no comment", d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					documentedSpec(t, f, d, s)
				}
			}
		}
	}
}

func documentedSpec(t *Tree, f *file, d *ast.GenDecl, s ast.Spec) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
			t.fail(f, t.line(s.Pos()), "documented", "%s has no comment", s.Name.Name)
		}
	case *ast.ValueSpec:
		if s.Names[0].IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
			t.fail(f, t.line(s.Pos()), "documented", "%s has no comment", s.Names[0].Name)
		}
	}
}

var leftovers = regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)

// lawLeftovers: what is not done is not in the tree.
func lawLeftovers(t *Tree) {
	t.grep("leftovers", leftovers, func(f *file) bool {
		return f.path == "LICENSE" || strings.HasSuffix(f.path, "package-lock.json")
	})
}

// place matches words that speak of where the code was written instead of what
// it is about: an absolute path of somebody's machine, a tool that typed it.
var place = regexp.MustCompile(`(?i)(?:^|[\s"'` + "`" + `(=:])/(?:wo` + `rk|home/[a-z]+|Users/[a-z]+)/` +
	`|\bhelper ag` + `ent\b|\bsub` + `-?agent\b|/tmp/br` + `ief|\.\./sha` + `red/|\bas an a` + `i\b|\blanguage mo` + `del\b`)

// lawPlace: the tree does not speak of a workplace.
func lawPlace(t *Tree) {
	t.grep("place", place, func(f *file) bool { return strings.HasSuffix(f.path, "package-lock.json") })
}

// grep fails every line of a text file that matches.
func (t *Tree) grep(law string, re *regexp.Regexp, except func(*file) bool) {
	for _, f := range t.files {
		if f.binary() || except(f) || !re.Match(f.data) {
			continue
		}
		for i, line := range strings.Split(string(f.data), "\n") {
			if m := re.FindString(line); m != "" {
				t.fail(f, i+1, law, "%q must not stay", strings.TrimSpace(m))
			}
		}
	}
}

// lawSize: nothing built, and no data, is in the tree.
func lawSize(t *Tree) {
	for _, f := range t.files {
		if f.size > maxFile {
			t.fail(f, 0, "size", "%d KiB, more than %d", f.size>>10, maxFile>>10)
		}
	}
}

// lawModule: the module has its name and its license.
func lawModule(t *Tree) {
	license, named := false, false
	for _, f := range t.files {
		switch f.path {
		case "LICENSE":
			license = strings.Contains(string(f.data), "Apache License")
		case "go.mod":
			named = strings.HasPrefix(string(f.data), "module "+module+"\n")
		}
	}
	if !license {
		t.found = append(t.found, Finding{"LICENSE", 0, "module", "the license is missing"})
	}
	if !named {
		t.found = append(t.found, Finding{"go.mod", 0, "module", "the module is not " + module})
	}
}
