package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

const everything = `cluster: web
nodes:
  alpha: {addresses: [10.0.0.1], fence: [[{device: bmc}]]}
  beta: {addresses: [10.0.0.2]}
arbitration:
  - ping: {targets: [10.0.0.254]}
fences:
  bmc: {agent: fence_ipmilan, options: {password: secret}}
  host: {link: host}
groups:
  web:
    resources:
      ip: {kind: floating-ip, address: 10.0.0.10}
      app: {kind: exec, after: [ip], start: start.sh, stop: stop.sh}
      md: {kind: mirror-disk, data: /dev/vdb2, meta: /dev/vdb1, per_node: {beta: {data: /dev/vdc2, meta: /dev/vdc1}}, mount: /data, fs: ext4, mount_options: noatime}
monitors:
  nic: {kind: nic-link, device: eth0, per_node: {beta: eth1}}
  script: {kind: custom, script: check.sh}
  userw: {kind: userspace, method: keepalive}
  mdw: {kind: mirror, resource: md}
`

// A field that Diff forgets would be applied without anybody being told. So
// every field of a file is changed once, and Diff must see it.
func TestDiffSeesEveryField(t *testing.T) {
	load := func() *File {
		f, errs := Parse("f", []byte(everything))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return f
	}
	// Fields that a kind does not have.
	unused := map[string]bool{"Monitors[0].Interval": true, "Monitors[0].Timeout": true, "Monitors[0].Retries": true}
	for _, field := range []string{
		"Interval", "Timeout", "Retries", "Wait", "When", "Target.Cluster", "Target.Group", "Target.Resource",
		"Recovery.Scripts", "Recovery.Restarts", "Recovery.Failovers", "Recovery.FinalAction", "Recovery.Script", "Recovery.BeforeRestart",
		"Recovery.BeforeFailover", "Recovery.BeforeFinal", "Recovery.ScriptTimeout",
	} {
		unused["Monitors[2]."+field] = true
	}
	old, n := load(), 0
	var walk func(path string, v func(*File) reflect.Value)
	walk = func(path string, v func(*File) reflect.Value) {
		probe := v(old)
		if !probe.IsValid() || path == "warnings" || probe.Kind() == reflect.Map && probe.Len() == 0 {
			return
		}
		switch probe.Type() {
		case reflect.TypeFor[netip.Addr]():
			changed := load()
			v(changed).Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
			check(t, old, changed, path, unused)
			n++
			return
		case reflect.TypeFor[time.Duration]():
			changed := load()
			v(changed).SetInt(probe.Int() + int64(time.Second))
			check(t, old, changed, path, unused)
			n++
			return
		}
		switch probe.Kind() {
		case reflect.Struct:
			for i := range probe.NumField() {
				walk(dotted(path, probe.Type().Field(i).Name), func(f *File) reflect.Value { return v(f).Field(i) })
			}
		case reflect.Pointer:
			if !probe.IsNil() {
				walk(path, func(f *File) reflect.Value { return v(f).Elem() })
			}
		case reflect.Slice:
			for i := range probe.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), func(f *File) reflect.Value { return v(f).Index(i) })
			}
		case reflect.Map:
			for i := range max(1, fieldCount(probe.Type().Elem())) {
				changed := load()
				alterEntry(v(changed), i)
				check(t, old, changed, path, unused)
				n++
			}
		default:
			changed := load()
			alter(v(changed))
			check(t, old, changed, path, unused)
			n++
		}
	}
	walk("", func(f *File) reflect.Value { return reflect.ValueOf(f).Elem() })
	if n < 80 {
		t.Errorf("only %d fields were tried", n)
	}
}

// alterEntry changes the first entry of a map: it, or its i-th field.
func alterEntry(m reflect.Value, i int) {
	key, other := m.MapKeys()[0], reflect.New(m.Type().Elem()).Elem()
	other.Set(m.MapIndex(key))
	if other.Kind() == reflect.Struct {
		alter(other.Field(i))
	} else {
		alter(other)
	}
	m.SetMapIndex(key, other)
}

func fieldCount(t reflect.Type) int {
	if t.Kind() != reflect.Struct {
		return 0
	}
	return t.NumField()
}

func dotted(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func alter(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Uint16:
		v.SetUint(v.Uint() + 1)
	default:
		v.SetInt(v.Int() + 1)
	}
}

func check(t *testing.T, old, changed *File, path string, unused map[string]bool) {
	t.Helper()
	// A cluster as target hides the other two.
	if !unused[path] && (strings.HasSuffix(path, ".Target.Group") || strings.HasSuffix(path, ".Target.Resource")) {
		return
	}
	if got := Diff(old, changed); (len(got) == 0) != unused[path] {
		t.Errorf("%s was changed, Diff says %v", path, got)
	}
}
