package httpapi_test

import (
	"strings"
	"testing"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/httpapi"
	"github.com/tasuki-ha/tasuki/internal/httpapi/httpapitest"
)

// Who asks for a change is in the log, as the first cause of what follows.
func TestWhoAsksIsTold(t *testing.T) {
	ann := httpapi.Caller{Kind: httpapi.User, Name: "ann", Roles: cluster.Roles()}
	for _, tt := range []struct {
		who       httpapi.Caller
		op, body  string
		told, why string
	}{
		{ann, "POST /v1/groups/g/move", `{"to":"n2"}`, "User ann has asked: move group g to n2.", ""},
		{ann, "POST /v1/groups/g/stop", `{"cause":"n1/7"}`, "User ann has asked: stop group g.", "n1/7"},
		{httpapi.Caller{Kind: httpapi.Token, Name: "cron", Roles: cluster.Roles()}, "POST /v1/monitors/m/suspend", `{}`, "Token cron has asked: suspend monitor m.", ""},
		{httpapi.Caller{Kind: httpapi.Local, Name: "root"}, "POST /v1/monitors/m/suspend", `{}`, "Root has asked: suspend monitor m.", ""},
		{httpapi.Caller{Kind: httpapi.Local, Name: "root"}, "POST /v1/groups/g/move", `{"cause":"n1/7"}`, "", ""}, // a script, whose cause is told
		{ann, "POST /v1/guests/v/status", `{}`, "", ""},
		{ann, "DELETE /v1/links/l", "", "User ann has asked: end the link to l.", ""},
		{ann, "POST /v1/groups/%0Aforged/stop", `{}`, "User ann has asked: stop group ?forged.", ""},
		{ann, "GET /v1/status", "", "", ""},
	} {
		b := &httpapitest.Backend{}
		if code, text := callOf(t, b, tt.who, tt.op, tt.body); code != 200 {
			t.Errorf("%s: %d %s", tt.op, code, text)
		}
		got := b.Records()
		if tt.told == "" {
			if len(got) != 0 {
				t.Errorf("%s: %v", tt.op, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Text != tt.told || string(got[0].Cause) != tt.why || got[0].Fields["author"] != tt.who.Author() {
			t.Errorf("%s: %+v", tt.op, got)
		}
	}
}

// A refusal is told too, as an effect of the asking.
func TestWhatIsRefusedIsTold(t *testing.T) {
	b := &httpapitest.Backend{Refusal: &api.Error{Code: "standby-down", Message: "no other node can take it"}}
	callOf(t, b, httpapi.Caller{Kind: httpapi.User, Name: "ann", Roles: cluster.Roles()}, "POST /v1/groups/g/move", `{}`)
	got := b.Records()
	if len(got) != 2 || got[1].Cause != "n1/r1" || got[1].Level != cluster.LevelWarn || !strings.Contains(got[1].Text, "(move group g) was not done: no other node can take it.") {
		t.Errorf("%+v", got)
	}
}
