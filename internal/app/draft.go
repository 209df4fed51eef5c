package app

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/config/draft"
)

// DraftStart returns the answers that the cluster file in force gives, and what of
// it there is no question for.
func (d *Daemon) DraftStart(context.Context) (api.DraftStart, error) {
	f := d.file()
	s := api.DraftStart{Answers: draft.Of(f)}
	a := s.Answers
	_, again, _ := draft.Make(a)
	if again == nil { // of two nodes, the file need not say who decides
		a.Third = api.ThirdAnswer{Kind: api.ThirdNone}
		_, again, _ = draft.Make(a)
	}
	if again == nil {
		a.Group = nil
		_, again, _ = draft.Make(a)
	}
	if again == nil {
		return s, nil
	}
	for _, c := range config.Diff(f, again) {
		if c.Old != "" {
			s.Lost = append(s.Lost, c.Path)
		}
	}
	return s, nil
}

// Draft has a process of its own make a cluster file, because the table of faults
// takes a processor for a while.
func (d *Daemon) Draft(ctx context.Context, a api.Answers) (api.Draft, error) {
	var out api.Draft
	err := d.drafter.answer(ctx, "draft", func(context.Context) (any, error) { return a, nil }, &out,
		"make a draft", api.Error{Message: "the table of faults takes too long to make", Hint: "on a node: tasuki config new, which takes its time"})
	return out, err
}
