package config

import (
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v4"
)

// decoder turns YAML nodes into the raw structs of raw.go. What is missing gets
// the default of its tag; what is wrong is told and left at zero, so that all
// the rest can still be checked.
//
// Tags of a raw field:
//
//	yaml     its key
//	need     "true": it must be written
//	default  its value where it is not written
//	enum     the words that it can be, separated by commas
//	range    the smallest and the largest value, "1..99"; a list: its length
//	each     the range of a list's elements
//	is       the form of a text, see forms
//	of       whose final action it is, see role
//	doc      what it is, for the schema and the documentation
//	unless   what holds where it is not written, if that is not one value
type decoder struct{ *problems }

// rawValue is a value that decodes itself. Decode gets the node; fill gets the
// text of the default tag.
type rawValue interface {
	decode(d *decoder, n *yaml.Node, f field)
	fill(text string)
}

// field is one key of a raw struct.
type field struct {
	key   string
	tag   reflect.StructTag
	typ   reflect.Type
	index []int
	path  string // of the mapping that holds it, for example groups.web
	at    src    // of the key, or of the list's element
}

func (f field) needed() bool   { return f.tag.Get("need") != "" }
func (f field) full() string   { return join(f.path, f.key) }
func (f field) enum() []string { return strings.FieldsFunc(f.tag.Get("enum"), isComma) }

func isComma(r rune) bool { return r == ',' }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// inPath returns " in PATH", or nothing at the top.
func inPath(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}

// fieldsOf lists the keys of a raw struct in their order; embedded structs
// count as written in place.
func fieldsOf(t reflect.Type, path string) []field {
	var out []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous {
			for _, f := range fieldsOf(sf.Type, path) {
				f.index = append([]int{i}, f.index...)
				out = append(out, f)
			}
			continue
		}
		if key := sf.Tag.Get("yaml"); key != "" {
			out = append(out, field{key: key, tag: sf.Tag, typ: sf.Type, index: []int{i}, path: path})
		}
	}
	return out
}

// pair is one key of a mapping with its value.
type pair struct {
	key   string
	at    src
	value *yaml.Node
}

// pairs returns the keys of a mapping in their order. Keys that are no text
// and keys that stand there twice are told and left out.
func (d *decoder) pairs(n *yaml.Node, path string) []pair {
	var out []pair
	first := map[string]src{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || isNull(k) {
			d.add(at(k), "", "a key%s must be a word, not %s", inPath(path), kindOf(k))
			continue
		}
		if was, twice := first[k.Value]; twice {
			d.add(at(k), "keep one of them", "%q%s stands here twice, first in line %d", k.Value, inPath(path), was.line)
			continue
		}
		first[k.Value] = at(k)
		out = append(out, pair{k.Value, at(k), n.Content[i+1]})
	}
	return out
}

// mapping says whether n is a mapping, and tells if not.
func (d *decoder) mapping(n *yaml.Node, path string) bool {
	if n.Kind == yaml.MappingNode {
		return true
	}
	if path == "" {
		path = "the file"
	}
	hint := "write `key: value` lines below it"
	if isNull(n) {
		hint += ", or leave it out"
	}
	d.add(at(n), hint, "%s must be a mapping, not %s", path, kindOf(n))
	return false
}

// structure fills the raw struct v from n, which is nil where nothing was
// written. where is the place to name for a missing key. Keys in also are
// known but decoded by the caller. unknown returns the hint for a key that v
// does not have.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, where src, path string, also []string, unknown func(string, []string) string) {
	fields := fieldsOf(v.Type(), path)
	written := map[string]bool{}
	if n != nil && d.mapping(n, path) {
		known := slices.Clone(also)
		for _, f := range fields {
			known = append(known, f.key)
		}
		for _, p := range d.pairs(n, path) {
			i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.key })
			switch {
			case i >= 0:
				written[p.key] = true
				d.value(p.value, v.FieldByIndex(fields[i].index), fields[i], p.at)
			case !slices.Contains(also, p.key):
				d.add(p.at, unknown(p.key, known), "unknown key %q%s", p.key, inPath(path))
				if len(d.errs) < MaxProblems {
					written[nearest(p.key, known)] = true // or its absence would be told as well
				}
			}
		}
	}
	for _, f := range fields {
		if written[f.key] {
			continue
		}
		if f.needed() && n != nil && n.Kind == yaml.MappingNode {
			d.add(where, f.tag.Get("doc"), "%q is missing%s", f.key, inPath(path))
		}
		d.absent(v.FieldByIndex(f.index), f)
	}
}

// value decodes one key that was written at that place.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f field, where src) {
	if r, ok := v.Addr().Interface().(rawValue); ok {
		if isNull(n) {
			d.add(where, "write a value, or leave the key out", "%q%s has no value", f.key, inPath(f.path))
			r.fill(f.tag.Get("default"))
			return
		}
		f.at = where
		r.decode(d, n, f)
		if n.Kind == yaml.MappingNode {
			setPlace(v, where)
		}
		return
	}
	setPlace(v, where)
	d.structure(n, v, where, f.full(), nil, d.hint)
}

// absent fills the defaults of a key that was not written.
func (d *decoder) absent(v reflect.Value, f field) {
	if r, ok := v.Addr().Interface().(rawValue); ok {
		if text := f.tag.Get("default"); text != "" {
			r.fill(text)
		}
		return
	}
	d.structure(nil, v, src{}, f.full(), nil, d.hint)
}

// placed is a raw struct that knows where its key stands.
type placed interface{ place(src) }

func (s *src) place(at src) { *s = at }

func setPlace(v reflect.Value, where src) {
	if p, ok := v.Addr().Interface().(placed); ok {
		p.place(where)
	}
}

// entry is one named element of a mapping whose keys are names.
type entry[T any] struct {
	src
	name string
	val  T
}

// rawMap is a mapping from names to structs, in the order of the file.
type rawMap[T any] struct {
	src
	items []*entry[T]
}

func (m *rawMap[T]) fill(string) {}

func (m *rawMap[T]) decode(d *decoder, n *yaml.Node, f field) {
	m.src = f.at
	if !d.mapping(n, f.full()) {
		return
	}
	pairs := d.pairs(n, f.full())
	d.length(f, f.at, len(pairs), "entries")
	for _, p := range pairs {
		e := &entry[T]{src: p.at, name: p.key}
		m.items = append(m.items, e)
		d.form(p.at, forms["name"], "name", p.key)
		d.value(p.value, reflect.ValueOf(&e.val).Elem(), field{key: p.key, path: f.full(), tag: elementTag(f.tag)}, p.at)
	}
}

// rawList is a list of values.
type rawList[T any] struct {
	src
	items []T
}

func (l *rawList[T]) fill(string) {}

func (l *rawList[T]) decode(d *decoder, n *yaml.Node, f field) {
	l.src = at(n)
	if n.Kind != yaml.SequenceNode {
		hint := "write it between brackets"
		if n.Kind == yaml.ScalarNode {
			hint = "write [" + n.Value + "]"
		}
		d.add(at(n), hint, "%q%s must be a list, not %s", f.key, inPath(f.path), kindOf(n))
		return
	}
	d.length(f, at(n), len(n.Content), "entries")
	l.items = make([]T, len(n.Content))
	for i, c := range n.Content {
		elem := field{key: f.key, path: f.path, tag: elementTag(f.tag)}
		d.value(c, reflect.ValueOf(&l.items[i]).Elem(), elem, at(c))
	}
}

// elementTag is the tag of a list's elements: the form and the words go to the
// elements, the range is the list's.
func elementTag(t reflect.StructTag) reflect.StructTag {
	var out []string
	for from, to := range map[string]string{"is": "is", "enum": "enum", "each": "range"} {
		if v := t.Get(from); v != "" {
			out = append(out, to+`:"`+v+`"`)
		}
	}
	slices.Sort(out)
	return reflect.StructTag(strings.Join(out, " "))
}
