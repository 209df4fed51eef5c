package tidy

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Finding is one break of a law.
type Finding struct {
	Path string
	Line int // 0: the file as a whole
	Law  string
	Text string
}

// String is the finding as compilers write it.
func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.Path, f.Law, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Law, f.Text)
}

// Tree is what is checked.
type Tree struct {
	fset  *token.FileSet
	files []*file // every file that belongs to the project
	code  []*file // the Go files among them
	found []Finding
	long  map[string]string // named exceptions, see longFunctions
}

type file struct {
	path  string
	dir   string
	data  []byte // nil: too large to be looked at
	size  int64
	ast   *ast.File // Go files
	test  bool
	layer layer
	names map[string]string // import path by local name
}

// skipped are folders that are no part of the project.
var skipped = map[string]bool{".git": true, "bin": true, "out": true, "node_modules": true, "dist": true}

// Load reads the tree below the root of a module.
func Load(root fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet(), long: longFunctions}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && skipped[d.Name()]:
			return fs.SkipDir
		case !d.Type().IsRegular() || d.Name() == ".git" || strings.HasSuffix(p, ".test") || strings.HasSuffix(p, ".prof"):
			return nil
		}
		return t.add(root, p, d)
	})
	return t, err
}

func (t *Tree) add(root fs.FS, p string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	f := &file{path: p, dir: path.Dir(p), size: info.Size(), test: strings.HasSuffix(p, "_test.go")}
	t.files = append(t.files, f)
	if f.size > 4<<20 {
		return nil
	}
	if f.data, err = fs.ReadFile(root, p); err != nil {
		return err
	}
	if !strings.HasSuffix(p, ".go") || strings.Contains(p, "testdata/") || strings.HasPrefix(p, "tools/") {
		return nil
	}
	if f.ast, err = parser.ParseFile(t.fset, p, f.data, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return err
	}
	f.layer = layerOf(f.dir)
	f.names = map[string]string{}
	for _, im := range f.ast.Imports {
		name := localName(im)
		f.names[name] = importPath(im)
	}
	t.code = append(t.code, f)
	return nil
}

func importPath(im *ast.ImportSpec) string {
	p, _ := strconv.Unquote(im.Path.Value)
	return p
}

// localName is the name by which a file calls an import. Without type
// information it is guessed from the path, which is right for what the laws
// name.
func localName(im *ast.ImportSpec) string {
	if im.Name != nil {
		return im.Name.Name
	}
	p := importPath(im)
	base := path.Base(p)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		base = path.Base(path.Dir(p))
	}
	return base
}

// callee returns the import path and name of a selector such as time.Now.
func (f *file) callee(n ast.Node) (pkg, name string, ok bool) {
	sel, isSel := n.(*ast.SelectorExpr)
	if !isSel {
		return "", "", false
	}
	id, isID := sel.X.(*ast.Ident)
	if !isID || f.names[id.Name] == "" {
		return "", "", false
	}
	return f.names[id.Name], sel.Sel.Name, true
}

// binary says whether a file is not text.
func (f *file) binary() bool {
	return f.data == nil || bytes.IndexByte(f.data[:min(len(f.data), 8000)], 0) >= 0
}

func (t *Tree) line(p token.Pos) int { return t.fset.Position(p).Line }

func (t *Tree) fail(f *file, line int, law, format string, args ...any) {
	t.found = append(t.found, Finding{f.path, line, law, fmt.Sprintf(format, args...)})
}

// Check applies every law and returns what breaks them, in order.
func (t *Tree) Check() []Finding {
	t.found = nil
	for _, l := range laws {
		l(t)
	}
	slices.SortFunc(t.found, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), strings.Compare(a.Text, b.Text))
	})
	return t.found
}
