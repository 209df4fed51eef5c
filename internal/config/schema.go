package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
)

// Schema returns the JSON schema (draft 2020-12) of a cluster file, for editors
// and for tools that write such files. What it refuses, Parse refuses too;
// Parse also checks what a schema cannot say.
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[rawFile]())
	s.Version = jsonschema.Version
	s.ID = "https://tasuki-ha.github.io/schemas/tasuki.schema.json"
	s.Title = "Tasuki cluster file"
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // the schema is made of our own types only
	}
	return append(out, '\n')
}

// schemaOf returns the schema of a raw type.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	if s := schemaOfValue(t); s != nil {
		return s
	}
	r := &jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true,
		Mapper: func(inner reflect.Type) *jsonschema.Schema {
			if inner == t {
				return nil
			}
			return schemaOf(inner)
		},
	}
	s := r.ReflectFromType(t)
	s.Version = ""
	for _, f := range fieldsOf(t, "") {
		if prop, ok := s.Properties.Get(f.key); ok {
			decorate(prop, f)
		}
		if f.needed() {
			s.Required = append(s.Required, f.key)
		}
	}
	return s
}

// schemaOfValue returns the schema of a raw type that is no plain struct, or nil.
func schemaOfValue(t reflect.Type) *jsonschema.Schema {
	switch v := reflect.New(t).Interface().(type) {
	case *rawText:
		return &jsonschema.Schema{Type: "string"}
	case *rawBool:
		return &jsonschema.Schema{Type: "boolean"}
	case *rawInt:
		return &jsonschema.Schema{Type: "integer"}
	case *rawCount:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: "0", Maximum: "99"}, {Const: wordNodes}}}
	case *rawDuration:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Pattern: durationRE().String()}, {Const: 0}}}
	case *rawSize:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string", Pattern: sizeRE().String()}, {Const: 0}}}
	case *rawAddr:
		return &jsonschema.Schema{Type: "string", AnyOf: []*jsonschema.Schema{{Format: "ipv4"}, {Format: "ipv6"}}}
	case *rawAction:
		return &jsonschema.Schema{}
	case *rawArbitrator:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Const: string(ArbitrateNone)}, {Const: string(ArbitrateFence)}, object(string(ArbitratePing), schemaOf(reflect.TypeFor[rawPing]()))}}
	case *rawTarget:
		name := func() *jsonschema.Schema {
			return &jsonschema.Schema{Type: "string", Pattern: forms["name"].pattern().String()}
		}
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Const: wordCluster}, object("group", name()), object("resource", name())}}
	case *rawResource:
		return oneOfKinds(resourceKinds)
	case *rawMonitor:
		return oneOfKinds(monitorKinds)
	case *rawOutlet:
		return oneOfKinds(outletKinds)
	case interface{ element() (reflect.Type, bool) }:
		elem, named := v.element()
		if !named {
			return &jsonschema.Schema{Type: "array", Items: schemaOf(elem)}
		}
		return &jsonschema.Schema{
			Type: "object", AdditionalProperties: schemaOf(elem),
			PropertyNames: &jsonschema.Schema{Pattern: forms["name"].pattern().String()},
		}
	}
	return nil
}

func (*rawMap[T]) element() (reflect.Type, bool)  { return reflect.TypeFor[T](), true }
func (*rawList[T]) element() (reflect.Type, bool) { return reflect.TypeFor[T](), false }

// object is a mapping that has one key and must have it.
func object(key string, val *jsonschema.Schema) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), Required: []string{key}, AdditionalProperties: jsonschema.FalseSchema}
	s.Properties.Set(key, val)
	return s
}

func oneOfKinds(list []variant) *jsonschema.Schema {
	out := &jsonschema.Schema{}
	for _, v := range list {
		s := schemaOf(reflect.TypeOf(v.make()).Elem())
		s.Description = v.doc
		s.Properties.Set("kind", &jsonschema.Schema{Const: v.kind, Description: kindDoc})
		s.Required = append([]string{"kind"}, s.Required...)
		out.OneOf = append(out.OneOf, s)
	}
	return out
}

// decorate adds to a property what the tags of its field say.
func decorate(s *jsonschema.Schema, f field) {
	s.Description = f.tag.Get("doc")
	if unless := f.tag.Get("unless"); unless != "" {
		s.Description += "; default: " + unless
	}
	if def := f.tag.Get("default"); def != "" {
		s.Default = def
		if n, err := strconv.Atoi(def); err == nil {
			s.Default = n
		} else if s.Type == "boolean" {
			s.Default = def == "true"
		}
	}
	leaf := s
	if s.Type == "array" {
		leaf = s.Items
	}
	if s.Type == "object" && s.AdditionalProperties != nil && s.AdditionalProperties != jsonschema.FalseSchema {
		leaf = s.AdditionalProperties
	}
	for _, word := range f.enum() {
		leaf.Enum = append(leaf.Enum, word)
	}
	if form := forms[f.tag.Get("is")]; form.pattern != nil && leaf.Type == "string" && leaf.AnyOf == nil {
		leaf.Pattern = form.pattern().String()
	}
	bounds(s, f.tag.Get("range"))
	if leaf != s {
		bounds(leaf, f.tag.Get("each"))
	}
	if r, ok := roles[f.tag.Get("of")]; ok {
		s.Enum = actionWords(r)
	}
}

// bounds sets the smallest and the largest number or length of a range tag.
func bounds(s *jsonschema.Schema, text string) {
	lo, hi, ok := strings.Cut(text, "..")
	if !ok {
		return
	}
	min, err1 := strconv.ParseUint(lo, 10, 64)
	max, err2 := strconv.ParseUint(hi, 10, 64)
	switch {
	case err1 != nil || err2 != nil:
		s.Description += "; " + lo + " to " + hi
	case s.Type == "integer":
		s.Minimum, s.Maximum = json.Number(lo), json.Number(hi)
	case s.Type == "array":
		s.MinItems, s.MaxItems = &min, &max
	case s.Type == "object":
		s.MinProperties, s.MaxProperties = &min, &max
	}
}

// actionWords lists what a final action can be: the words, and the numbers of
// CLUSTERPRO that mean one of them.
func actionWords(r role) []any {
	var out []any
	for _, w := range r.words() {
		out = append(out, w)
	}
	for n := range 17 {
		if slices.Contains(r.offered(), r.code(n)) {
			out = append(out, n)
		}
	}
	return out
}
