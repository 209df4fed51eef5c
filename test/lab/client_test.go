package lab_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedClient generates a Go client of what a node says of its API, and has
// the program in test/client do with it what a script would: sign in, read, operate on
// a group, and understand refusals.
func TestGeneratedClient(t *testing.T) {
	s := plain(t, "CLP-1")
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS("../client")))
	must(t, os.WriteFile(filepath.Join(dir, "openapi.json"), []byte(do(t, s, "CLP-1", "tasuki", "api", "openapi")), 0o644))
	must(t, os.Mkdir(filepath.Join(dir, "tasuki"), 0o755))
	in := func(argv ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", argv...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	in("tool", "oapi-codegen", "-generate", "types,client", "-package", "tasuki", "-o", "tasuki/client.go", "openapi.json")
	in("vet", "./...")
	in("build", "-trimpath", "-ldflags", "-s -w", "-o", "client", ".")
	program, err := os.ReadFile(filepath.Join(dir, "client"))
	must(t, err)
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", "/root/client", 0o755, program))

	out := do(t, s, "CLP-1", "sh", "-euc", `
		export TOKEN=$(tasuki token add generated --roles read,operate --ttl 1h) CA=/etc/tasuki/identity/ca.pem NODE=https://10.2.102.52:29002 OTHER=CLP-2
		until curl -sSf --cacert $CA -H "Authorization: Bearer $TOKEN" $NODE/v1/self >/dev/null; do :; done # the other node must know the token
		timeout 60 /root/client failover`)
	for _, want := range []string{"signed in: token generated", "group: failover online CLP-1", "move: p", "group: failover online CLP-2", "stop: p", "group: failover offline", "start: p", "refused: 403 token-refused", "refused: 409 standby-down", "refused: 404 no-such-group", "refused: 403 not-allowed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
