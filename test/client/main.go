// Command client does what a script of an administrator would, with a client that a
// generator made of the description of the API and nothing else. That client, package
// tasuki, is not kept: TestGeneratedClient in test/lab generates it, builds this and
// runs it against a node.
//
//	NODE=https://HOST:29002 CA=FILE TOKEN=… OTHER=NODE-TO-MOVE-TO client GROUP
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/tasuki-ha/tasuki/test/client/tasuki"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "error: the name of a group is missing")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1], os.Getenv("OTHER")); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// problem is what the API answers when it does not do what was asked.
type problem struct{ *tasuki.Problem }

func (p problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }

// answered returns what a call of the generated client came to.
func answered[T any](ok *T, no *tasuki.Problem, r *http.Response) (*T, error) {
	switch {
	case no != nil:
		return nil, problem{no}
	case ok == nil:
		return nil, fmt.Errorf("the node answers %s", r.Status)
	}
	return ok, nil
}

type script struct {
	*tasuki.ClientWithResponses
	group string
}

func connect(token string) (*tasuki.ClientWithResponses, error) {
	pem, err := os.ReadFile(os.Getenv("CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no certificate in " + os.Getenv("CA"))
	}
	return tasuki.NewClientWithResponses(os.Getenv("NODE"),
		tasuki.WithHTTPClient(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}),
		tasuki.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token)
			return nil
		}))
}

func run(ctx context.Context, group, other string) error {
	stranger, err := connect("nobody's")
	if err != nil {
		return err
	}
	if err := refused(403, "token-refused")((&script{stranger, group}).self(ctx)); err != nil {
		return fmt.Errorf("a token that does not exist: %w", err)
	}
	c, err := connect(os.Getenv("TOKEN"))
	if err != nil {
		return err
	}
	s := &script{c, group}
	if err := s.self(ctx); err != nil {
		return err
	}
	if err := s.stands(ctx, "online", ""); err != nil {
		return err
	}
	if err := s.operate(ctx, "move", &other); err != nil {
		return err
	}
	if err := s.stands(ctx, "online", other); err != nil {
		return err
	}
	for _, step := range []struct{ verb, phase string }{{"stop", "offline"}, {"start", "online"}} {
		if err := s.operate(ctx, step.verb, nil); err != nil {
			return err
		}
		if err := s.stands(ctx, step.phase, ""); err != nil {
			return err
		}
	}
	nowhere := "nowhere"
	if err := refused(409, "standby-down")(s.operate(ctx, "move", &nowhere)); err != nil {
		return fmt.Errorf("a move to a node that does not exist: %w", err)
	}
	if err := refused(404, "no-such-group")((&script{c, "nothing"}).operate(ctx, "stop", nil)); err != nil {
		return fmt.Errorf("a stop of a group that does not exist: %w", err)
	}
	r, err := s.NodeFenceWithResponse(ctx, other, tasuki.NodeFenceJSONRequestBody{})
	if err != nil {
		return err
	}
	_, err = answered(r.JSON200, r.ApplicationproblemJSONDefault, r.HTTPResponse)
	if err := refused(403, "not-allowed")(err); err != nil {
		return fmt.Errorf("a node is forced off without the role: %w", err)
	}
	return nil
}

// refused returns what is wrong with an error that should be a problem of that
// status and code.
func refused(status int64, code string) func(error) error {
	return func(err error) error {
		var p problem
		switch {
		case err == nil:
			return errors.New("it is not refused")
		case !errors.As(err, &p) || p.Status != status || p.Code != code:
			return fmt.Errorf("it is refused, but with %w", err)
		}
		fmt.Println("refused:", err)
		return nil
	}
}

func (s *script) self(ctx context.Context) error {
	r, err := s.SelfWithResponse(ctx)
	if err != nil {
		return err
	}
	me, err := answered(r.JSON200, r.ApplicationproblemJSONDefault, r.HTTPResponse)
	if err != nil {
		return err
	}
	fmt.Println("signed in:", me.Kind, me.Name)
	return nil
}

// stands says whether the group is in that phase, and where; owner "" is any.
func (s *script) stands(ctx context.Context, phase, owner string) error {
	r, err := s.StatusWithResponse(ctx)
	if err != nil {
		return err
	}
	st, err := answered(r.JSON200, r.ApplicationproblemJSONDefault, r.HTTPResponse)
	if err != nil {
		return err
	}
	for _, g := range *st.Groups {
		if g.Name != s.group {
			continue
		}
		at := ""
		if g.Owner != nil {
			at = *g.Owner
		}
		fmt.Println("group:", g.Name, g.Phase, at)
		if g.Phase != phase || owner != "" && at != owner {
			return fmt.Errorf("group %s is %s on %q, not %s on %q", g.Name, g.Phase, at, phase, owner)
		}
		return nil
	}
	return errors.New("there is no group " + s.group)
}

// operate has something done with the group, twice with the same id, which does it
// once, and waits for the end of the plan.
func (s *script) operate(ctx context.Context, verb string, to *string) error {
	id := fmt.Sprintf("%s-%d", verb, time.Now().UnixNano())
	plan := ""
	for range 2 {
		r, err := s.GroupWithResponse(ctx, s.group, verb, tasuki.GroupOp{Id: &id, To: to})
		if err != nil {
			return err
		}
		begun, err := answered(r.JSON200, r.ApplicationproblemJSONDefault, r.HTTPResponse)
		if err != nil {
			return err
		}
		if begun.Plan == nil || plan != "" && *begun.Plan != plan {
			return fmt.Errorf("%s with the id %s is plan %v, after %q", verb, id, begun.Plan, plan)
		}
		plan = *begun.Plan
	}
	wait := "30s"
	r, err := s.PlanWithResponse(ctx, plan, &tasuki.PlanParams{Wait: &wait})
	if err != nil {
		return err
	}
	end, err := answered(r.JSON200, r.ApplicationproblemJSONDefault, r.HTTPResponse)
	if err != nil {
		return err
	}
	fmt.Println(verb+":", plan, end.Text)
	if !end.Ended || !end.Ok {
		return fmt.Errorf("plan %s: %s", plan, end.Text)
	}
	return nil
}
