package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tasuki-ha/tasuki/api"
)

// Versions of the API that this daemon speaks: the N of /vN/. Within one version
// operations, and fields of answers, are only added; a caller ignores fields that
// it does not know.
const (
	minVersion = 1
	maxVersion = 1
)

// Description returns the description of the API, OpenAPI 3.1, as JSON or YAML.
func Description(version string, yaml bool) ([]byte, error) {
	doc := newServer(nil, version, http.NewServeMux()).api.OpenAPI()
	if yaml {
		return doc.YAML()
	}
	return doc.MarshalJSON()
}

// tokenScheme is the name of the access token among the ways to be known.
const tokenScheme = "token"

// about is what the description says of the API as a whole.
func about(c huma.Config) {
	c.Info.Description = "High-availability clusterware. Every node answers for the whole cluster. docs/api.md explains errors, roles and streams, with examples."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.Servers = []*huma.Server{{URL: "https://{node}:{port}", Description: "any node of the cluster", Variables: map[string]*huma.ServerVariable{
		"node": {Default: "localhost"}, "port": {Default: "29002"},
	}}}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{tokenScheme: {Type: "http", Scheme: "bearer",
		Description: "an access token: tasuki token add"}}
}

// describe says in the description who may call an operation.
func (r right) describe(op *huma.Operation) {
	bearer := []map[string][]string{{tokenScheme: {}}}
	switch {
	case r.role != "":
		op.Description = fmt.Sprintf("Takes the role %s.", r.role)
		op.Security = bearer
		op.Extensions = map[string]any{"x-tasuki-role": string(r.role)}
	case r.lets(Caller{Kind: Anonymous}):
		op.Description = "Whoever reaches the port may call it."
		op.Security = []map[string][]string{}
	case r.lets(Caller{Kind: Token}):
		op.Description = "Takes no role."
		op.Security = bearer
	case r.lets(Caller{Kind: User}):
		op.Description = "For users who signed in to the console."
	default:
		op.Description = "For nodes of linked clusters, which show their certificate."
	}
}

// letAnswersGrow has the description say of answers that they may have fields which it
// does not name: a later version adds some, and clients of some generators refuse what
// they are told cannot be there. What is asked with is checked to the letter; events,
// which other clusters hand on, are not.
func letAnswersGrow(doc *huma.OpenAPI) {
	asked := map[*huma.Schema]bool{}
	var ask func(s *huma.Schema)
	ask = func(s *huma.Schema) {
		if s != nil && s.Ref != "" {
			s = doc.Components.Schemas.SchemaFromRef(s.Ref)
		}
		if s == nil || asked[s] {
			return
		}
		asked[s] = true
		ask(s.Items)
		for _, p := range s.Properties {
			ask(p)
		}
		if more, is := s.AdditionalProperties.(*huma.Schema); is {
			ask(more)
		}
	}
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Put, path.Post, path.Delete, path.Patch} {
			if op == nil || op.RequestBody == nil {
				continue
			}
			for _, content := range op.RequestBody.Content {
				ask(content.Schema)
			}
		}
	}
	for name, s := range doc.Components.Schemas.Map() {
		if s.AdditionalProperties == false && (!asked[s] || name == "Event") {
			s.AdditionalProperties = nil
		}
	}
}

// versions tells which versions of the API are spoken, for callers of any.
func (s *server) versions() {
	type none struct{}
	register(s, everyone, "GET", "/versions", "versions", "The versions of this API that the node speaks: the N of /vN/", func(context.Context, *none) (*body[api.Versions], error) {
		return answer(api.Versions{Min: minVersion, Max: maxVersion}, nil)
	})
}

// otherVersion returns the error for a path of a version that is not spoken, or
// nil.
func otherVersion(path string) error {
	v, _, _ := strings.Cut(strings.TrimPrefix(path, "/v"), "/")
	if !strings.HasPrefix(path, "/v") || v == "" || strings.Trim(v, "0123456789") != "" {
		return nil
	}
	return &api.Error{Code: "no-such-api-version", Message: fmt.Sprintf("this node speaks version %d of the API, not %.8s", maxVersion, v), Hint: "GET /versions says which versions a node speaks"}
}
