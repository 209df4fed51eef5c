package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Bounds of one event. What is longer is cut when it is ours, and refused when
// it comes from elsewhere.
const (
	maxText   = 4096 // bytes
	maxFields = 32
	maxKey    = 64   // bytes, also of Module and Code
	maxValue  = 1024 // bytes
	maxLine   = 64 << 10
)

// Fields with a meaning for the journal.
const (
	// FieldFromCluster names the cluster that an event came from, where it is
	// not this one. MergeForeign sets it.
	FieldFromCluster = "from_cluster"
	// FieldCauseCluster names the cluster of the event's cause, where node
	// names alone do not say it.
	FieldCauseCluster = "cause_cluster"
	// FieldGroup names the group that an event is about.
	FieldGroup = "group"
	// FieldPlan names the plan that an event belongs to.
	FieldPlan = "plan"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MakeID returns the id of a node's event.
func MakeID(n cluster.NodeName, seq uint64) cluster.EventID {
	return cluster.EventID(string(n) + "/" + strconv.FormatUint(seq, 10))
}

// ParseID takes an id apart.
func ParseID(id cluster.EventID) (cluster.NodeName, uint64, error) {
	node, num, ok := strings.Cut(string(id), "/")
	if !ok || cluster.CheckName(node) != nil {
		return "", 0, fmt.Errorf("%q is not the id of an event: NODE/NUMBER", id)
	}
	seq, err := strconv.ParseUint(num, 10, 63)
	if err != nil || seq == 0 || num[0] == '+' || num[0] == '0' {
		return "", 0, fmt.Errorf("%q is not the id of an event: NODE/NUMBER", id)
	}
	return cluster.NodeName(node), seq, nil
}

// check says what is wrong with an event that came from elsewhere.
func check(e *api.Event) error {
	node, _, err := ParseID(e.ID)
	if err != nil {
		return err
	}
	if node != e.Node {
		return fmt.Errorf("event %s says that %q wrote it", e.ID, e.Node)
	}
	if e.Cause != "" {
		if _, _, err := ParseID(e.Cause); err != nil {
			return fmt.Errorf("event %s: cause: %w", e.ID, err)
		}
	}
	if y := e.Time.Year(); y < 1970 || y > 2261 {
		return fmt.Errorf("event %s: the year %d", e.ID, y)
	}
	if e.Level != cluster.LevelInfo && e.Level != cluster.LevelWarn && e.Level != cluster.LevelError {
		return fmt.Errorf("event %s: level %q", e.ID, e.Level)
	}
	if len(e.Text) > maxText || len(e.Module) > maxKey || len(e.Code) > maxKey || len(e.Fields) > maxFields {
		return fmt.Errorf("event %s is too long", e.ID)
	}
	for k, v := range e.Fields {
		if k == "" || len(k) > maxKey || len(v) > maxValue {
			return fmt.Errorf("event %s: field %q is too long", e.ID, k)
		}
	}
	for _, f := range []string{FieldFromCluster, FieldCauseCluster} {
		if v, ok := e.Fields[f]; ok && cluster.CheckName(v) != nil {
			return fmt.Errorf("event %s: %s %q", e.ID, f, v)
		}
	}
	return nil
}

// trim cuts an own event to the bounds.
func trim(e *api.Event) {
	e.Text, e.Module, e.Code = cut(e.Text, maxText), cut(e.Module, maxKey), cut(e.Code, maxKey)
	if len(e.Fields) == 0 {
		e.Fields = nil
		return
	}
	fields := make(map[string]string, len(e.Fields))
	for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
		if len(fields) < maxFields && k != "" {
			fields[cut(k, maxKey)] = cut(e.Fields[k], maxValue)
		}
	}
	e.Fields = fields
}

// cut shortens s to n bytes at the most, at the border of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	const dots = "…"
	n -= len(dots)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + dots
}

var (
	escaper   = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, "=", `\e`)
	textEscer = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)
	unescaper = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n", `\r`, "\r", `\e`, "=")
)

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return unescaper.Replace(s)
}

// appendLine appends the line of an event: checksum, id, time, level, module,
// code, cause, text, then the fields as key=value in order, all separated by
// tabs, and a newline.
func appendLine(dst []byte, e *api.Event) []byte {
	return sealLine(dst, func(b []byte) []byte {
		b = append(b, e.ID...)
		b = append(b, '\t')
		b = e.Time.UTC().AppendFormat(b, time.RFC3339Nano)
		for _, s := range []string{string(e.Level), e.Module, e.Code, string(e.Cause), e.Text} {
			b = append(b, '\t')
			b = append(b, textEscer.Replace(s)...)
		}
		for _, k := range slices.Sorted(maps.Keys(e.Fields)) {
			b = append(b, '\t')
			b = append(b, escaper.Replace(k)...)
			b = append(b, '=')
			b = append(b, textEscer.Replace(e.Fields[k])...)
		}
		return b
	})
}

// sealLine appends one line with its checksum before it.
func sealLine(dst []byte, body func([]byte) []byte) []byte {
	start := len(dst)
	dst = append(dst, "00000000\t"...)
	dst = body(dst)
	copy(dst[start:], fmt.Sprintf("%08x", crc32.Checksum(dst[start+9:], castagnoli)))
	return append(dst, '\n')
}

// openLine checks a line without its newline and returns what follows the
// checksum.
func openLine(line []byte) (string, error) {
	if len(line) < 10 || line[8] != '\t' {
		return "", errors.New("not a line of a journal")
	}
	var sum uint32
	for _, c := range line[:8] {
		d := bytes.IndexByte([]byte("0123456789abcdef"), c)
		if d < 0 {
			return "", errors.New("not a line of a journal")
		}
		sum = sum<<4 | uint32(d)
	}
	if sum != crc32.Checksum(line[9:], castagnoli) {
		return "", errors.New("wrong checksum")
	}
	return string(line[9:]), nil
}

// parseEvent is the inverse of appendLine, after openLine.
func parseEvent(body string) (api.Event, error) {
	parts := strings.Split(body, "\t")
	if len(parts) < 7 {
		return api.Event{}, errors.New("too few columns")
	}
	at, err := time.Parse(time.RFC3339Nano, parts[1])
	if err != nil {
		return api.Event{}, err
	}
	e := api.Event{
		ID: cluster.EventID(parts[0]), Time: at, Level: cluster.Level(unescape(parts[2])), Module: unescape(parts[3]),
		Code: unescape(parts[4]), Cause: cluster.EventID(unescape(parts[5])), Text: unescape(parts[6]),
	}
	node, _, _ := strings.Cut(parts[0], "/")
	e.Node = cluster.NodeName(node)
	if len(parts) > 7 {
		e.Fields = make(map[string]string, len(parts)-7)
	}
	for _, p := range parts[7:] {
		k, v, _ := strings.Cut(p, "=")
		e.Fields[unescape(k)] = unescape(v)
	}
	return e, check(&e)
}

// Line is how an event is shown to people:
//
//	2010/09/24 21:18:18 CLP-1 rc Stopping group failover has started.
//
// It is one line whatever the text holds; a nil loc is UTC.
func Line(e api.Event, loc *time.Location) string {
	if loc == nil {
		loc = time.UTC
	}
	return fmt.Sprintf("%s %s %s %s", e.Time.In(loc).Format("2006/01/02 15:04:05"), e.Node, clean(e.Module), clean(e.Text))
}

// clean replaces what could move a terminal's cursor or break the line.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			return '\ufffd'
		}
		return r
	}, s)
}
