package admission

import (
	"slices"
	"testing"
	"time"

	"github.com/tasuki-ha/tasuki/internal/cluster"
	"github.com/tasuki-ha/tasuki/internal/state"
)

var clock = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// withUsers is a state with an administrator, who has all roles, an operator, and
// a token of each.
func withUsers(t *testing.T) *state.State {
	t.Helper()
	s := state.New()
	for name, roles := range map[cluster.UserName][]cluster.Role{"root-like": cluster.Roles(), "op": {cluster.RoleRead, cluster.RoleOperate}} {
		carry(t, s, Ask{ID: cluster.RequestID("user " + name), Kind: UserAdd, User: name, Hash: "h", Roles: roles, Granted: cluster.Roles(), Author: "root", Wall: clock})
		carry(t, s, Ask{ID: cluster.RequestID("token " + name), Kind: AccessAdd, Token: string(name), Access: &state.Access{Name: "n", Created: clock, Expires: clock.Add(time.Hour)},
			Roles: roles, Granted: cluster.Roles(), Author: "root", Wall: clock})
	}
	return s
}

func carry(t *testing.T, s *state.State, a Ask) {
	t.Helper()
	e, no := Admit(s, a)
	if no != nil {
		t.Fatal(no)
	}
	s.Apply(e)
}

// Nobody gives, or takes, a role that he has not himself; only the own password
// is everybody's.
func TestRolesAreNotMadeOfNothing(t *testing.T) {
	half := []cluster.Role{cluster.RoleRead, cluster.RoleConfigure}
	for _, tt := range []struct {
		ask  Ask
		code string // "" : it is done
	}{
		{Ask{Kind: UserAdd, User: "new", Roles: half}, ""},
		{Ask{Kind: UserAdd, User: "new", Roles: cluster.Roles()}, "role-not-granted"},
		{Ask{Kind: UserRoles, User: "op", Roles: half}, "role-not-granted"}, // it takes operate away
		{Ask{Kind: UserPassword, User: "root-like", Hash: "mine"}, "role-not-granted"},
		{Ask{Kind: UserPassword, User: "op", Hash: "mine"}, "role-not-granted"},
		{Ask{Kind: UserRemove, User: "root-like"}, "role-not-granted"},
		{Ask{Kind: UserOwn, User: "root-like", Hash: "mine"}, ""},
		{Ask{Kind: AccessAdd, Token: "t", Access: &state.Access{Name: "n", Created: clock, Expires: clock.Add(time.Hour)}, Roles: []cluster.Role{cluster.RoleFence}}, "role-not-granted"},
		{Ask{Kind: AccessRemove, Token: "root-like"}, "role-not-granted"},

		{Ask{Kind: UserAdd, User: "op", Roles: half}, "user-exists"},
		{Ask{Kind: UserAdd, User: "with blank", Roles: half}, "bad-name"},
		{Ask{Kind: UserAdd, User: "new", Roles: []cluster.Role{"admin"}}, "bad-role"},
		{Ask{Kind: UserAdd, User: "new"}, "bad-role"},
		{Ask{Kind: UserRoles, User: "nobody", Roles: half}, "no-such-user"},
		{Ask{Kind: AccessRemove, Token: "none"}, "no-such-token"},
		{Ask{Kind: AccessAdd, Token: "t", Access: &state.Access{Name: "n", Created: clock, Expires: clock.Add(3 * MaxAccess)}, Roles: half}, "bad-token-ttl"},
		{Ask{Kind: AccessAdd, Token: "t", Access: &state.Access{Name: "n", Created: clock, Expires: clock}, Roles: half}, "bad-token-ttl"},
		{Ask{Kind: AccessAdd, Token: "t", Roles: half}, "bad-ask"},
	} {
		tt.ask.ID, tt.ask.Granted, tt.ask.Author, tt.ask.Wall = "it", half, "user half", clock
		_, no := Admit(withUsers(t), tt.ask)
		if code := ""; no != nil && no.Code != tt.code || no == nil && code != tt.code {
			t.Errorf("%s of %s%s to %v: %v, not %q", tt.ask.Kind, tt.ask.User, tt.ask.Token, tt.ask.Roles, no, tt.code)
		}
	}
}

// What is done stands in the state: a new password ends the sessions of the old
// one, other changes do not; a token that has expired is forgotten in time.
func TestUsersInTheState(t *testing.T) {
	s := withUsers(t)
	later := clock.Add(30 * time.Minute)
	carry(t, s, Ask{ID: "1", Kind: UserRoles, User: "op", Roles: []cluster.Role{cluster.RoleOperate, cluster.RoleRead, cluster.RoleRead}, Granted: cluster.Roles(), Author: "root", Wall: later})
	if u := s.Users["op"]; !slices.Equal(u.Roles, []cluster.Role{cluster.RoleRead, cluster.RoleOperate}) || !u.Changed.Equal(clock) || u.Hash != "h" {
		t.Errorf("%+v", u)
	}
	carry(t, s, Ask{ID: "2", Kind: UserOwn, User: "op", Hash: "new", Author: "user op", Wall: later})
	if u := s.Users["op"]; u.Hash != "new" || !u.Changed.Equal(later) || u.Author != "user op" || len(u.Roles) != 2 {
		t.Errorf("%+v", u)
	}
	carry(t, s, Ask{ID: "3", Kind: UserRemove, User: "op", Granted: cluster.Roles(), Author: "root", Wall: later})
	if _, there := s.Users["op"]; there || len(s.Users) != 1 || len(s.Accesses) != 2 {
		t.Errorf("%+v %+v", s.Users, s.Accesses)
	}
	carry(t, s, Ask{ID: "4", Kind: AccessAdd, Token: "late", Access: &state.Access{Name: "n", Created: clock.Add(2 * time.Hour), Expires: clock.Add(3 * time.Hour)},
		Roles: cluster.Roles(), Granted: cluster.Roles(), Author: "root", Wall: clock.Add(2 * time.Hour)})
	if a := s.Accesses["late"]; len(s.Accesses) != 1 || a.Author != "root" || len(a.Roles) != len(cluster.Roles()) {
		t.Errorf("%+v", s.Accesses)
	}
}
