package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// change is register for an operation that changes something. Who asks for it is
// told in the operator's log first, and that event becomes the cause of what
// follows; so is a refusal. asks says what is asked for, "" if nothing changes by
// it, and where its cause stands, if it has one. Where a cause is given already, that event tells more
// than that root has asked.
func change[I, O any](s *server, who right, method, path, id, summary string, asks func(*I) (string, *cluster.EventID), f func(context.Context, *I) (*O, error)) {
	register(s, who, method, path, id, summary, func(ctx context.Context, i *I) (*O, error) {
		c := CallerOf(ctx)
		what, cause := asks(i)
		if cause == nil {
			cause = new(cluster.EventID)
		}
		if what == "" || c.Kind == Node || c.Kind == Local && *cause != "" {
			return f(ctx, i)
		}
		asked := api.Event{Module: "apisv", Code: "asked", Cause: *cause, Fields: map[string]string{"author": c.Author()},
			Text: fmt.Sprintf("%s has asked: %s.", sentence(c.Author()), printable(what))}
		*cause = cmp.Or(s.b.Record(ctx, asked), *cause)
		out, err := f(ctx, i)
		var p *problem
		if errors.As(err, &p) {
			s.b.Record(ctx, api.Event{Level: cluster.LevelWarn, Module: "apisv", Code: "asked-in-vain", Cause: *cause, Fields: asked.Fields,
				Text: fmt.Sprintf("What %s has asked (%s) was not done: %s.", c.Author(), printable(what), strings.TrimSuffix(p.Detail, "."))})
		}
		return out, err
	})
}

// sentence lets a text begin as a sentence does.
func sentence(s string) string {
	return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):]
}

// printable makes a text that a caller chose fit for a line of the log.
func printable(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}
