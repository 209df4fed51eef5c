package draft

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// writer writes YAML and remembers which answer stands where.
type writer struct {
	text  strings.Builder
	line  int // from 1, as the parser counts
	col   int // from 1, in characters
	marks []mark
}

// mark is where an answer begins.
type mark struct {
	line, col int
	field     string
}

func newWriter() *writer { return &writer{line: 1, col: 1} }

// raw writes text of ours.
func (w *writer) raw(text string) {
	w.text.WriteString(text)
	if at := strings.LastIndexByte(text, '\n'); at >= 0 {
		w.line += strings.Count(text, "\n")
		w.col, text = 1, text[at+1:]
	}
	w.col += len([]rune(text))
}

// answer writes a value that is, or was made from, an answer.
func (w *writer) answer(field, value string) {
	w.marks = append(w.marks, mark{w.line, w.col, field})
	w.raw(scalar(value))
}

// pair writes a key with an answer, on a line of its own.
func (w *writer) pair(indent, key, field, value string) {
	w.raw(indent + key + ": ")
	w.answer(field, value)
	w.raw("\n")
}

// list writes answers as a list in one line.
func (w *writer) list(field func(i int) string, values []string) {
	w.raw("[")
	for i, v := range values {
		if i > 0 {
			w.raw(", ")
		}
		w.answer(field(i), v)
	}
	w.raw("]")
}

// at returns the answer that stands at a place of the file, or before it.
func (w *writer) at(line, col int) string {
	for _, m := range slices.Backward(w.marks) {
		if m.line < line || m.line == line && m.col <= col {
			return m.field
		}
	}
	return ""
}

var (
	plainRE = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9._/-]*$`)
	nullRE  = regexp.MustCompile(`^(?i:null)$`)
)

// scalar writes a value so that YAML reads it as the same text.
func scalar(s string) string {
	if plainRE.MatchString(s) && !nullRE.MatchString(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f || r > 0xffff || !strconv.IsPrint(r):
			b.WriteString(`\U`)
			b.WriteString(hex8(r))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// hex8 returns the eight digits of an escape.
func hex8(r rune) string {
	h := strconv.FormatInt(int64(r), 16)
	return strings.Repeat("0", 8-len(h)) + h
}
