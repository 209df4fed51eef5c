package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// block is a fenced block of a document.
var block = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```\n")

// endOfOutput comes after the output of each example.
const endOfOutput = "-- end of an example --"

// TestManualOfTheAPI runs the examples of docs/api.md, on one node against the API
// of the other, with curl and the token that the first example makes. What an
// example puts out ends as the block after it says.
func TestManualOfTheAPI(t *testing.T) {
	doc, err := os.ReadFile("../../docs/api.md")
	must(t, err)
	script, wants := "", [][2]string{} // per example: the kind of its block, and the block
	for _, b := range block.FindAllStringSubmatch(string(doc), -1) {
		switch kind, text := b[1], b[2]; kind {
		case "sh":
			script += text + "echo '" + endOfOutput + "'\n"
			wants = append(wants, [2]string{})
		default:
			wants[len(wants)-1] = [2]string{kind, text}
		}
	}
	if len(wants) < 10 {
		t.Fatalf("only %d examples", len(wants))
	}
	s := plain(t, "CLP-1")
	// The other node must know the token before it is shown.
	script = strings.Replace(script, "\napi $NODE/v1/self\n", "\nuntil api $NODE/v1/self | grep -q '\"token\"'; do :; done\napi $NODE/v1/self\n", 1)
	must(t, s.Lab.WriteFile(t.Context(), "CLP-1", "/root/examples.sh", 0o644, []byte(script)))
	got := strings.Split(do(t, s, "CLP-1", "timeout", "60", "sh", "-eu", "/root/examples.sh"), endOfOutput+"\n")
	if len(got) != len(wants)+1 {
		t.Fatalf("%d outputs of %d examples: %q", len(got)-1, len(wants), got)
	}
	for i, want := range wants {
		switch want[0] {
		case "json":
			answerIs(t, got[i], want[1])
		case "text":
			linesAre(t, got[i], want[1])
		}
	}
	// Whoever looks later, at any node, sees who did it.
	told(t, s, "CLP-2", "access-token-made", "(example) was made with the roles read, operate")
	told(t, s, "CLP-2", "user-set", "User ann was added with the roles read, operate (by root)")
	told(t, s, "CLP-1", "access-refused", "the caller is token example")
}

// answerIs fails unless the last line is a JSON value that has what want has.
func answerIs(t *testing.T, got, want string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(got), "\n")
	var is, should any
	if err := json.Unmarshal([]byte(want), &should); err != nil {
		t.Fatalf("the manual has no JSON: %v\n%s", err, want)
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &is); err != nil {
		t.Errorf("%v: %s", err, got)
		return
	}
	if why := lacks(is, should); why != "" {
		t.Errorf("%s, in the answer:\n%.2000s\nof which the manual says:\n%s", why, lines[len(lines)-1], want)
	}
}

// lacks says what of should is not so, or "". Fields, and elements at the end of a
// list, may be more.
func lacks(is, should any) string {
	switch should := should.(type) {
	case map[string]any:
		m, _ := is.(map[string]any)
		for k, v := range should {
			if why := lacks(m[k], v); why != "" {
				return k + ": " + why
			}
		}
		return ""
	case []any:
		l, _ := is.([]any)
		if len(l) < len(should) {
			return fmt.Sprintf("%d elements", len(l))
		}
		for i := range should {
			if why := lacks(l[i], should[i]); why != "" {
				return fmt.Sprintf("%d: %s", i, why)
			}
		}
		return ""
	}
	if is != should && (should != "…" || is == nil) {
		return fmt.Sprintf("it is %v, not %v", is, should)
	}
	return ""
}

// linesAre fails unless the lines are those of want, of which each may end with …
func linesAre(t *testing.T, got, want string) {
	t.Helper()
	is, should := strings.Split(strings.TrimSpace(got), "\n"), strings.Split(strings.TrimSpace(want), "\n")
	ok := len(is) == len(should)
	for i := 0; ok && i < len(is); i++ {
		part, cut := strings.CutSuffix(should[i], "…")
		ok = is[i] == should[i] || cut && strings.HasPrefix(is[i], part)
	}
	if !ok {
		t.Errorf("the manual says:\n%s\nand it was:\n%.2000s", want, got)
	}
}
