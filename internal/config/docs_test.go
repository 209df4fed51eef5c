package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

const (
	docsFile   = "../../docs/cluster-file.md"
	docsMarker = "<!-- what follows is generated: go generate ./internal/config -->\n"
)

// The part of the documentation behind the marker is made from the tags of the
// raw structs, like the schema.
func TestDocsAreCurrent(t *testing.T) {
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := bytes.Cut(got, []byte(docsMarker))
	if !ok {
		t.Fatalf("%s has no line %s", docsFile, docsMarker)
	}
	want := append(bytes.Clone(head), docsMarker+keysAsMarkdown()...)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(docsFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s is not current; write it with: go generate ./internal/config", docsFile)
	}
}

func keysAsMarkdown() string {
	var out strings.Builder
	table := func(title, text string, t reflect.Type) {
		fmt.Fprintf(&out, "\n### %s\n\n", title)
		if text != "" {
			fmt.Fprintf(&out, "%s\n\n", text)
		}
		out.WriteString("| key | default | what it is |\n| --- | --- | --- |\n")
		for _, f := range fieldsOf(t, "") {
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", f.key, defaultInWords(f), describe(f))
		}
	}
	table("The file", "", reflect.TypeFor[rawFile]())
	table("A node: nodes.NAME", "", reflect.TypeFor[rawNode]())
	table("Arbitration by ping: arbitration: [{ping: …}]", "", reflect.TypeFor[rawPing]())
	table("A step of a node's fence: nodes.NAME.fence: [[{…}]]", "", reflect.TypeFor[rawStep]())
	table("A fence device: fences.NAME", "", reflect.TypeFor[rawFence]())
	table("timing", "", reflect.TypeFor[rawTiming]())
	table("quarantine", "", reflect.TypeFor[rawQuarantine]())
	table("A group: groups.NAME", "", reflect.TypeFor[rawGroup]())
	table("hold of a group", "", reflect.TypeFor[rawHold]())
	for _, v := range resourceKinds {
		table("A resource of kind "+v.kind+": groups.NAME.resources.NAME", "`kind: "+v.kind+"`: "+v.doc+".", reflect.TypeOf(v.make()).Elem())
	}
	table("The devices of a mirror disk on one node: groups.NAME.resources.NAME.per_node.NODE", "", reflect.TypeFor[rawMirrorDevices]())
	table("activation of a resource", "Final actions: "+actionsInWords(ofActivation), reflect.TypeFor[rawActivation]())
	table("deactivation of a resource", "Final actions: "+actionsInWords(ofDeactivation), reflect.TypeFor[rawDeactivation]())
	for _, v := range monitorKinds {
		table("A monitor of kind "+v.kind+": monitors.NAME", "`kind: "+v.kind+"`: "+v.doc+".", reflect.TypeOf(v.make()).Elem())
	}
	table("recovery of a monitor", "Final actions: "+actionsInWords(ofMonitor), reflect.TypeFor[rawRecovery]())
	table("recovery of a monitor of a mirror disk", "The same, without restarts and failovers unless they are written.", reflect.TypeFor[rawMirrorRecovery]())
	for _, v := range outletKinds {
		table("An outlet of kind "+v.kind+": outlets.NAME", "`kind: "+v.kind+"`: "+v.doc+".", reflect.TypeOf(v.make()).Elem())
	}
	table("requests", "", reflect.TypeFor[rawRequests]())
	table("A guest: guests.NAME", "`guests: {CLP-1: {}}` is the domain CLP-1 of libvirt. At most one of the keys can be written.", reflect.TypeFor[rawGuest]())
	return out.String()
}

func defaultInWords(f field) string {
	switch unless, def := f.tag.Get("unless"), f.tag.Get("default"); {
	case f.needed():
		return "must be written"
	case unless != "":
		return unless
	case def != "":
		return "`" + def + "`"
	}
	return ""
}

func describe(f field) string {
	text := strings.ReplaceAll(f.tag.Get("doc"), "|", `\|`)
	if words := f.enum(); len(words) > 0 {
		text += "; " + oneOf(words)
	}
	lo, hi, ok := strings.Cut(f.tag.Get("range"), "..")
	switch reflect.New(f.typ).Interface().(type) {
	case *rawInt, *rawCount, *rawDuration, *rawSize:
		if ok {
			text += "; " + lo + " to " + hi
		}
	case interface{ element() (reflect.Type, bool) }:
		if ok && hi != "1" {
			text += "; " + lo + " to " + hi + " of them"
		}
		if lo, hi, ok := strings.Cut(f.tag.Get("each"), ".."); ok {
			text += ", each " + lo + " to " + hi
		}
	}
	return text
}

func actionsInWords(r role) string {
	var out []string
	for _, a := range r.offered() {
		var numbers []string
		for n := range 17 {
			if r.code(n) == a {
				numbers = append(numbers, fmt.Sprint(n))
			}
		}
		out = append(out, fmt.Sprintf("`%s` (%s)", a, strings.Join(numbers, ", ")))
	}
	return strings.Join(out, ", ") + "."
}
