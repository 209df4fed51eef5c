package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

func description(t *testing.T, yaml bool) []byte {
	t.Helper()
	doc, err := httpapi.Description("v0.0.0", yaml)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// strict has a description refuse in answers what it does not name, which it does not
// for clients: what this version answers it names all of.
func strict(t *testing.T, doc []byte) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(doc, &all); err != nil {
		t.Fatal(err)
	}
	for _, s := range schemasOf(all) {
		if _, says := s["additionalProperties"]; !says && s["properties"] != nil {
			s["additionalProperties"] = false
		}
	}
	doc, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func schemasOf(doc map[string]any) map[string]map[string]any {
	out := map[string]map[string]any{}
	for name, s := range doc["components"].(map[string]any)["schemas"].(map[string]any) {
		out[name] = s.(map[string]any)
	}
	return out
}

// A client that refuses what its description does not name goes on with a later
// version; what is asked with must be known.
func TestAnswersMayGrow(t *testing.T) {
	var doc map[string]any
	if err := json.Unmarshal(description(t, false), &doc); err != nil {
		t.Fatal(err)
	}
	schemas := schemasOf(doc)
	for name, closed := range map[string]bool{"Status": false, "Group": false, "Begun": false, "Problem": false, "Event": false, "GroupOp": true, "Request": true, "SimulateRequest": true} {
		if got := schemas[name]["additionalProperties"] == false; got != closed {
			t.Errorf("%s refuses what it does not name: %v", name, got)
		}
	}
	if code, text := callOf(t, &httpapitest.Backend{}, httpapi.Caller{Kind: httpapi.Local, Name: "root"}, "POST /v1/groups/g/move", `{"where":"n2"}`); code != http.StatusUnprocessableEntity {
		t.Errorf("an unknown key is answered with %d %s", code, text)
	}
}

// judge returns the description and a validator of it.
func judge(t *testing.T) (libopenapi.Document, validator.Validator) {
	t.Helper()
	doc, err := libopenapi.NewDocument(strict(t, description(t, false)))
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return doc, v
}

// The description is OpenAPI 3.1 by the word of a validator that others use.
func TestDescriptionIsValid(t *testing.T) {
	doc, v := judge(t)
	if ok, why := v.ValidateDocument(); !ok {
		for _, e := range why {
			t.Error(e.Message, e.Reason, e.SchemaValidationErrors)
		}
	}
	if got := doc.GetSpecInfo().Version; got != "3.1.0" {
		t.Error(got)
	}
	if yaml := string(description(t, true)); !strings.Contains(yaml, "openapi: 3.1.0\n") {
		t.Error("no YAML:", yaml[:100])
	}
}

// What the handlers take and give is what the description says: each operation of
// the table is called with the least that it takes, and both sides are checked.
func TestHandlersKeepTheDescription(t *testing.T) {
	_, v := judge(t)
	h := httpapi.New(&httpapitest.Backend{State: groups("online")}, "test")
	for op, allowed := range rights {
		if endless(op) || op == "GET /metrics" {
			continue
		}
		r := ask(op, bodies[op])
		for _, kind := range allowed.kinds[:1] {
			r = r.WithContext(httpapi.WithCaller(r.Context(), httpapi.Caller{Kind: kind, Name: "who", Link: "c"}))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		again := ask(op, bodies[op]) // whose body was not read yet
		again.Header.Set("Authorization", "Bearer x")
		if ok, why := v.ValidateHttpRequestResponse(again, w.Result()); !ok {
			for _, e := range why {
				t.Errorf("%s: %s: %s %v", op, e.Message, e.Reason, e.SchemaValidationErrors)
			}
		}
	}
	// An answer that is not as described is seen.
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.WriteString(`{"cluster": 7}`)
	r := ask("GET /v1/status", "")
	r.Header.Set("Authorization", "Bearer x")
	if ok, _ := v.ValidateHttpRequestResponse(r, w.Result()); ok {
		t.Error("the validator takes anything")
	}
}

// Each operation says which role it takes.
func TestDescriptionNamesTheRoles(t *testing.T) {
	var spec struct {
		Paths map[string]map[string]struct {
			Role     string                `json:"x-tasuki-role"`
			Security []map[string][]string `json:"security"`
			Summary  string                `json:"summary"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(description(t, false), &spec); err != nil {
		t.Fatal(err)
	}
	for op, allowed := range rights {
		method, path, _ := strings.Cut(op, " ")
		is := spec.Paths[path][strings.ToLower(method)]
		if is.Role != string(allowed.role) || is.Summary == "" || (allowed.role != "") != (len(is.Security) == 1 && is.Security[0]["token"] != nil) && op != "GET /v1/self" {
			t.Errorf("%s: %+v, not %q", op, is, allowed.role)
		}
	}
}

// A caller of another version is told what is spoken, whoever it is.
func TestVersions(t *testing.T) {
	h := httpapi.New(&httpapitest.Backend{}, "test")
	if code, text := callOn(t, h, httpapi.Caller{Kind: httpapi.Anonymous}, "GET /versions", ""); code != http.StatusOK || text != `{"min":1,"max":1}`+"\n" {
		t.Error(code, text)
	}
	for path, code := range map[string]int{
		"/v2/status": http.StatusNotFound, "/v0": http.StatusNotFound, "/v1/nothing": http.StatusNotFound,
		"/version": http.StatusForbidden, "/v/status": http.StatusForbidden, "/v1x/status": http.StatusForbidden,
	} {
		if got, text := callOn(t, h, httpapi.Caller{Kind: httpapi.Anonymous}, "GET "+path, ""); got != code || strings.HasPrefix(path, "/v2") && !strings.Contains(text, `"no-such-api-version"`) {
			t.Error(path, got, text)
		}
	}
}

// operations is the table of all operations as docs/api.md has it.
func operations(t *testing.T) string {
	t.Helper()
	type operation struct {
		Role    string `json:"x-tasuki-role"`
		Text    string `json:"description"`
		Summary string `json:"summary"`
	}
	var spec struct {
		Paths map[string]map[string]operation `json:"paths"`
	}
	if err := json.Unmarshal(description(t, false), &spec); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for path, methods := range spec.Paths {
		for method, op := range methods {
			role := "`" + op.Role + "`"
			if op.Role == "" {
				role = strings.ToLower(op.Text[:1]) + strings.TrimSuffix(op.Text[1:], ".")
			}
			rows = append(rows, fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", path, strings.ToUpper(method), role, op.Summary))
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

// The manual has each operation with its role.
func TestManualHasAllOperations(t *testing.T) {
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := operations(t); !strings.HasSuffix(string(doc), "| --- | --- | --- | --- |\n"+table) {
		t.Errorf("docs/api.md must end with:\n%s", table)
	}
}
