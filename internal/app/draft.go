package app

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/config/draft"
)

// DraftStart returns the answers that the cluster file in force gives, and what of
// it there is no question for.
func (d *Daemon) DraftStart(context.Context) (api.DraftStart, error) {
	f := d.file()
	s := api.DraftStart{Answers: draft.Of(f)}
	_, again, refused := draft.Make(s.Answers)
	if refused != nil {
		return s, nil // the wizard shows what is missing
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
	in, err := json.Marshal(a)
	if err != nil {
		return out, fmt.Errorf("write answers: %w", err)
	}
	text, err := d.asker.ask(ctx, in, "config", "new", "--answers", "-", "--json")
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("read a draft: %w", err)
	}
	return out, nil
}
