package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// rawText is a word or a line of text. Every plain value is taken as it is
// written, so that `no` and `10` can be names.
type rawText struct {
	src
	val string // "" where it was refused
}

// form is what a text may look like.
type form struct {
	pattern func() *regexp.Regexp
	hint    string
}

// compiled compiles a pattern when it is first used: the program is started for many
// a command that reads no cluster file.
func compiled(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

var forms = map[string]form{
	"name":    {compiled(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`), "use 1 to 64 letters, digits, '.', '-' or '_', the first a letter or digit"},
	"device":  {compiled(`^[A-Za-z0-9._-][A-Za-z0-9._:@-]{0,14}$`), "write the name that `ip link` shows, at most 15 characters"},
	"line":    {compiled(`^[^\x00-\x1f]{1,200}$`), "write one line of at most 200 characters"},
	"path":    {compiled(`^/?[^/\x00-\x1f]+(/[^/\x00-\x1f]+)*$`), "write an absolute path, or a file name"},
	"options": {compiled(`^[^\x00-\x20,\x7f]{1,64}(,[^\x00-\x20,\x7f]{1,64})*$`), "write options separated by commas without blanks, for example noatime,nodev"},
	"agent":   {compiled(`^fence_[a-z0-9_]{1,60}$`), "write the name of a program of fence-agents without its directory, for example fence_ipmilan"},
	"syslog":  {compiled(`^(unix:///[^/\x00-\x1f]+(/[^/\x00-\x1f]+)*|(udp|tcp|tls)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)$`), "write unix:///PATH, udp://HOST:PORT, tcp://HOST:PORT or tls://HOST:PORT, with an IPv6 address between brackets"},
	"https":   {compiled(`^https://[^\x00-\x20#]{1,1000}$`), "write https://HOST/PATH; events are not sent in the clear"},
	"otlp":    {compiled(`^https?://[^\x00-\x20#?]{1,1000}$`), "write https://HOST:4318, or http://127.0.0.1:4318 for a collector of this machine"},
	"abs":     {compiled(`^(/[^/\x00-\x1f]+)+$`), "write an absolute path, without a slash at its end"},
}

// form tells if the text does not have the form.
func (d *decoder) form(where src, f form, key, text string) bool {
	if f.pattern != nil && !f.pattern().MatchString(text) {
		d.add(where, f.hint, "%q is no %s", short(text), formNames[key])
		return false
	}
	return true
}

// short cuts a text that is too long to show.
func short(text string) string {
	const most = 40
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

var formNames = map[string]string{"name": "name", "device": "interface", "line": "short text", "path": "path", "abs": "absolute path", "agent": "fence agent", "syslog": "place where a syslog daemon listens", "https": "address of an HTTPS server", "otlp": "address of a collector", "options": "list of mount options"}

// scalar returns the text of a single value, or tells that it is none.
func (d *decoder) scalar(n *yaml.Node, f field, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.add(at(n), "", "%q%s must be %s, not %s", f.key, inPath(f.path), want, kindOf(n))
		return "", false
	}
	return n.Value, true
}

func (t *rawText) fill(text string) { t.val = text }

func (t *rawText) decode(d *decoder, n *yaml.Node, f field) {
	t.src = at(n)
	text, ok := d.scalar(n, f, "a text")
	if !ok {
		return
	}
	if enum := f.enum(); len(enum) > 0 {
		for _, word := range enum {
			if text == word {
				t.val = text
				return
			}
		}
		d.add(t.src, d.hint(text, enum), "%q cannot be %q", f.key, short(text))
		return
	}
	is := f.tag.Get("is")
	if !d.form(t.src, forms[is], is, text) {
		return
	}
	if (is == "path" || is == "abs") && hasDots(text) {
		d.add(t.src, "write the path without . and ..", "%q must not leave its directory: %q", f.key, short(text))
		return
	}
	t.val = text
}

func hasDots(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// rawBool is true or false.
type rawBool struct {
	src
	val bool
}

func (b *rawBool) fill(text string) { b.val = text == "true" }

func (b *rawBool) decode(d *decoder, n *yaml.Node, f field) {
	b.src = at(n)
	if n.Tag != "!!bool" {
		d.add(b.src, "write true or false, without quotes", "%q must be true or false, not %s", f.key, quoted(n))
		return
	}
	b.val = strings.EqualFold(n.Value, "true")
}

// quoted shows a single value as it stands, or says what else it is.
func quoted(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		return strconv.Quote(short(n.Value))
	}
	return kindOf(n)
}

// rawInt is a number. ok is false where it was refused.
type rawInt struct {
	src
	val int
	ok  bool
}

func (i *rawInt) fill(text string) {
	i.val, _ = strconv.Atoi(text)
	i.ok = true
}

func (i *rawInt) decode(d *decoder, n *yaml.Node, f field) {
	i.src = at(n)
	v, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || n.Value != strconv.Itoa(v) {
		d.add(i.src, "write a plain number"+rangeHint(f), "%q must be a number, not %s", f.key, quoted(n))
		return
	}
	if !d.within(f, i.src, v) {
		return
	}
	i.val, i.ok = v, true
}

// within tells if v is outside the range of the field's tag.
func (d *decoder) within(f field, where src, v int) bool {
	lo, hi, ok := strings.Cut(f.tag.Get("range"), "..")
	if !ok {
		return true
	}
	least, _ := strconv.Atoi(lo)
	most, _ := strconv.Atoi(hi)
	if v < least || v > most {
		d.add(where, fmt.Sprintf("it can be %s to %s", lo, hi), "%q is out of range: %d", f.key, v)
		return false
	}
	return true
}

// length tells if a list or a mapping is shorter or longer than its range.
func (d *decoder) length(f field, where src, n int, of string) {
	lo, hi, ok := strings.Cut(f.tag.Get("range"), "..")
	least, _ := strconv.Atoi(lo)
	most, _ := strconv.Atoi(hi)
	if ok && (n < least || n > most) {
		d.add(where, "", "%q must have %d to %d %s, not %d", f.key, least, most, of, n)
	}
}

func rangeHint(f field) string {
	if lo, hi, ok := strings.Cut(f.tag.Get("range"), ".."); ok {
		return fmt.Sprintf(" from %s to %s", lo, hi)
	}
	return ""
}

// rawCount is a number, or the word `nodes` for as many as there are nodes.
type rawCount struct{ rawInt }

const wordNodes = "nodes"

func (c *rawCount) decode(d *decoder, n *yaml.Node, f field) {
	if n.Kind == yaml.ScalarNode && n.Value == wordNodes {
		c.src, c.val, c.ok = at(n), AsManyAsNodes, true
		return
	}
	c.rawInt.decode(d, n, f)
}

// rawDuration is a time with its unit. ok is false where it was refused.
type rawDuration struct {
	src
	val time.Duration
	ok  bool
}

var durationRE = compiled(`^(0|([0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h))+)$`)

func (t *rawDuration) fill(text string) {
	t.val, _ = time.ParseDuration(text)
	t.ok = true
}

func (t *rawDuration) decode(d *decoder, n *yaml.Node, f field) {
	t.src = at(n)
	text, ok := d.scalar(n, f, "a time")
	if !ok {
		return
	}
	v, err := time.ParseDuration(text)
	switch {
	case n.Tag == "!!int" && text != "0":
		d.add(t.src, fmt.Sprintf("add a unit: %[1]sms, %[1]ss, %[1]sm or %[1]sh", text), "%q needs a unit: %s", f.key, text)
	case err != nil || !durationRE().MatchString(text):
		d.add(t.src, "write a number with its unit: 300ms, 1s, 30m or 1h", "%q is not a time: %q", f.key, short(text))
	case d.withinTime(f, t.src, v, text):
		t.val, t.ok = v, true
	}
}

func (d *decoder) withinTime(f field, where src, v time.Duration, text string) bool {
	lo, hi, ok := strings.Cut(f.tag.Get("range"), "..")
	if !ok {
		return true
	}
	least, _ := time.ParseDuration(lo)
	most, _ := time.ParseDuration(hi)
	if v < least || v > most {
		d.add(where, fmt.Sprintf("it can be %s to %s", lo, hi), "%q is out of range: %s", f.key, text)
		return false
	}
	return true
}

// rawSize is a number of bytes with its unit, or 0. ok is false where it was
// refused.
type rawSize struct {
	src
	val int64
	ok  bool
}

var (
	sizeRE    = compiled(`^(0|[0-9]{1,9}(K|M|G)i?B)$`)
	sizeUnits = map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1e3, "MB": 1e6, "GB": 1e9}
)

// parseSize returns the bytes of a text that sizeRE matches.
func parseSize(text string) int64 {
	digits := strings.TrimRight(text, "KMGiB")
	n, _ := strconv.ParseInt(digits, 10, 64)
	if unit := text[len(digits):]; unit != "" {
		n *= sizeUnits[unit]
	}
	return n
}

// sizeInWords is the shortest text that means so many bytes.
func sizeInWords(n int64) string {
	for _, unit := range []string{"GiB", "GB", "MiB", "MB", "KiB", "KB"} {
		if n > 0 && n%sizeUnits[unit] == 0 {
			return fmt.Sprintf("%d%s", n/sizeUnits[unit], unit)
		}
	}
	return strconv.FormatInt(n, 10)
}

func (t *rawSize) fill(text string) { t.val, t.ok = parseSize(text), true }

func (t *rawSize) decode(d *decoder, n *yaml.Node, f field) {
	t.src = at(n)
	text, ok := d.scalar(n, f, "a size")
	if !ok {
		return
	}
	lo, hi, _ := strings.Cut(f.tag.Get("range"), "..")
	switch v := int64(0); {
	case n.Tag == "!!int" && text != "0":
		d.add(t.src, fmt.Sprintf("add a unit: %[1]sKiB, %[1]sMiB or %[1]sGiB", text), "%q needs a unit: %s", f.key, text)
	case !sizeRE().MatchString(text):
		d.add(t.src, "write a whole number with its unit: KiB, MiB, GiB, or KB, MB, GB", "%q is not a size: %q", f.key, short(text))
	case text == "0" && f.tag.Get("default") == "0":
		t.ok = true
	default:
		if v = parseSize(text); v < parseSize(lo) || v > parseSize(hi) {
			d.add(t.src, fmt.Sprintf("it can be %s to %s", lo, hi), "%q is out of range: %s", f.key, text)
			return
		}
		t.val, t.ok = v, true
	}
}

// rawAddr is an IP address. The zero value of val is an address that was not
// written or was refused.
type rawAddr struct {
	src
	val netip.Addr
}

func (a *rawAddr) fill(string) {}

func (a *rawAddr) decode(d *decoder, n *yaml.Node, f field) {
	a.src = at(n)
	text, ok := d.scalar(n, f, "an IP address")
	if !ok {
		return
	}
	addr, err := netip.ParseAddr(text)
	switch host, prefix, slash := strings.Cut(text, "/"); {
	case slash && f.tag.Get("is") == "float":
		d.add(a.src, fmt.Sprintf("write address: %s and prefix: %s", host, prefix), "%q must be an address without its prefix length", short(text))
	case slash:
		d.add(a.src, "write "+host, "%q must be an address without its prefix length", short(text))
	case err != nil:
		d.add(a.src, "write an IPv4 or IPv6 address, for example 192.168.10.1", "%q is no IP address", short(text))
	default:
		if why := unusable(addr); why != "" {
			d.add(a.src, "write an address that is one machine's", "%s cannot be in %q: %s", addr, f.key, why)
			return
		}
		a.val = addr
	}
}

// unusable says why an address can be nobody's, or "".
func unusable(a netip.Addr) string {
	switch {
	case a.Is4In6():
		return "it is an IPv4 address written as IPv6"
	case a.IsUnspecified():
		return "it stands for every address"
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is a multicast or broadcast address"
	case a.Is6() && a.IsLinkLocalUnicast():
		return "link-local IPv6 addresses differ in meaning on every interface"
	case a.Zone() != "":
		return "it names an interface"
	}
	return ""
}

// rawAction is a final action, written as a word or as a number of CLUSTERPRO.
// Which ones there are depends on whose it is.
type rawAction struct {
	src
	val cluster.FinalAction // "" where it was refused
}

func (a *rawAction) fill(text string) { a.val = cluster.FinalAction(text) }

func (a *rawAction) decode(d *decoder, n *yaml.Node, f field) {
	a.src = at(n)
	if text, ok := d.scalar(n, f, "a final action"); ok {
		a.val = d.action(a.src, text, roles[f.tag.Get("of")])
	}
}
