package config

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

// MaxSize is the largest cluster file that is read, in bytes.
const MaxSize = 1 << 20

const maxDepth = 32 // levels of nesting; the deepest setting stands at level 7

// root returns the top node of the text, or nil after it has told what is
// wrong with the text as a whole.
func (p *problems) root(data []byte) *yaml.Node {
	if !p.readable(data) {
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		p.add(src{}, "", "the file cannot be read as YAML: %v", err)
		return nil
	}
	var doc yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		p.empty()
		return nil
	case err != nil:
		p.syntax(err, data)
		return nil
	case len(doc.Content) == 0 || isNull(doc.Content[0]):
		p.empty()
		return nil
	}
	var next yaml.Node
	switch err := loader.Load(&next); {
	case errors.Is(err, io.EOF):
	case err != nil:
		p.syntax(err, data)
		return nil
	default:
		p.add(at(&next), "keep one document: remove the line ---", "a second YAML document begins here")
		return nil
	}
	if !p.plain(doc.Content[0], 0) {
		return nil
	}
	return doc.Content[0]
}

func (p *problems) empty() {
	p.add(src{}, "a cluster file needs at least cluster: and nodes:", "the file is empty")
}

// readable says whether the bytes are text of a bearable size.
func (p *problems) readable(data []byte) bool {
	if len(data) > MaxSize {
		p.add(src{}, "a cluster file has some dozens of lines", "the file has %d bytes, more than %d", len(data), MaxSize)
		return false
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			p.add(position(data, i), "save it as UTF-8", "the file is not UTF-8: byte 0x%02x", data[i])
			return false
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f {
			p.add(position(data, i), "remove it", "the file holds a control character: 0x%02x", r)
			return false
		}
		i += n
	}
	return true
}

func position(data []byte, offset int) src {
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return src{line: bytes.Count(before, []byte("\n")) + 1, col: utf8.RuneCount(before[start:]) + 1}
}

// syntax tells the parser's error, in our words where a tab is the cause.
func (p *problems) syntax(err error, data []byte) {
	where, what := src{}, err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		where, what = src{le.Mark.Line, le.Mark.Column}, le.Message
		if le.ContextMsg != "" {
			what += ", " + le.ContextMsg
		}
	}
	if tab := firstTab(data); tab.written() && (!where.written() || tab.line <= where.line) {
		p.add(tab, "use spaces", "a tab stands in the indentation")
		return
	}
	what = strings.TrimPrefix(what, "yaml: ")
	p.add(where, "look at the indentation, the colons and the quotes of this line and the one before it", "the file is not YAML: %s", what)
}

// firstTab finds the first tab in the blanks before a line's text.
func firstTab(data []byte) src {
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := bytes.TrimLeft(line, " \t")
		if tab := bytes.IndexByte(line[:len(line)-len(text)], '\t'); tab >= 0 && len(bytes.TrimSpace(text)) > 0 {
			return src{i + 1, tab + 1}
		}
	}
	return src{}
}

// plain says whether the tree is made of plain values only. YAML's anchors,
// aliases, merge keys and tags would let one line stand for a million, and let
// the text on the screen differ from its meaning.
func (p *problems) plain(n *yaml.Node, depth int) bool {
	const hint = "write the value out where it is used"
	switch {
	case n.Kind == yaml.AliasNode:
		p.add(at(n), hint, "aliases (*%s) are not allowed", n.Value)
		return false
	case n.Anchor != "":
		p.add(at(n), hint, "anchors (&%s) are not allowed", n.Anchor)
		return false
	case n.Tag == "!!merge":
		p.add(at(n), hint, "merge keys (<<) are not allowed")
		return false
	case n.Style&yaml.TaggedStyle != 0:
		p.add(at(n), "remove it", "tags (%s) are not allowed", n.Tag)
		return false
	case depth > maxDepth:
		p.add(at(n), "", "the file is nested more than %d levels deep", maxDepth)
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = p.plain(c, depth+1) && ok
	}
	return ok
}

func at(n *yaml.Node) src { return src{n.Line, n.Column} }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// kindOf names what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "nothing"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}
