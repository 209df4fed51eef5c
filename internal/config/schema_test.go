package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	yaml "go.yaml.in/yaml/v4"

	"github.com/tasuki-ha/tasuki/internal/config"
)

const schemaFile = "../../schemas/tasuki.schema.json"

// wantFile compares a generated file with the one in the tree, or writes it.
func wantFile(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s is not current; write it with: go generate ./internal/config", path)
	}
}

func TestSchemaIsCurrent(t *testing.T) { wantFile(t, schemaFile, config.Schema()) }

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON reads YAML as an editor with a schema does.
func asJSON(data []byte) (any, error) {
	var v any
	if err := yaml.Load(data, &v); err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

func TestSchemaAcceptsExamples(t *testing.T) {
	s := compileSchema(t)
	files, _ := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if len(files) < 3 {
		t.Fatal("no examples")
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := asJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What the schema refuses, Parse refuses; what only relations make wrong, the
// schema cannot see. The list names the defects that it must see.
func TestSchemaRefusesDefects(t *testing.T) {
	mustSee := []string{
		"addresses-empty", "addresses-missing", "addresses-no-list", "arbitration-unknown", "cluster-is-mapping",
		"cluster-name-invalid", "comment-too-long", "duration-invalid", "duration-without-unit", "exec-without-start", "final-action-bmc",
		"final-action-of-others", "final-action-unknown", "group-startup-unknown", "missing-cluster-and-nodes", "monitor-custom-no-script",
		"monitor-kind-missing", "monitor-nic-link-interval", "monitor-userspace-method", "node-name-invalid", "nodes-empty", "nodes-is-list",
		"ping-without-targets", "port-is-text", "port-out-of-range", "resource-key-of-other-kind", "resource-kind-unknown", "retries-out-of-range",
		"timing-profile-unknown", "too-many-nodes", "top-is-list", "unknown-key-far", "unknown-node-key", "unknown-top-key", "address-invalid",
		"mirror-words", "mirror-nothing-named", "mirror-monitor-resource",
	}
	s := compileSchema(t)
	seen := map[string]bool{}
	files, _ := filepath.Glob("testdata/defects/*.txtar")
	for _, path := range files {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := asJSON(ar.Files[0].Data)
		if err != nil {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		seen[name] = s.Validate(v) != nil
		if _, errs := config.Parse("f", ar.Files[0].Data); seen[name] && len(errs) == 0 {
			t.Errorf("%s: the schema refuses what Parse accepts: %v", name, s.Validate(v))
		}
	}
	for _, name := range mustSee {
		if !seen[name] {
			t.Errorf("the schema accepts the defect %s", name)
		}
	}
}

// seeds returns all examples and defects for the fuzzer.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	var out [][]byte
	for _, glob := range []string{filepath.Join(examples, "*.yaml"), "testdata/defects/*.txtar"} {
		files, _ := filepath.Glob(glob)
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			if ar := txtar.Parse(data); len(ar.Files) > 0 {
				data = ar.Files[0].Data
			}
			out = append(out, data)
		}
	}
	return out
}
