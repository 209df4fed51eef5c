package httpapitest

import (
	"context"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/config"
	"github.com/tasuki-ha/tasuki/internal/config/draft"
	"github.com/tasuki-ha/tasuki/internal/survival"
)

// DraftStart returns the answers that the latest of Versions gives.
func (b *Backend) DraftStart(context.Context) (api.DraftStart, error) {
	b.called("draft-start")
	if len(b.Versions) == 0 {
		return api.DraftStart{}, nil
	}
	f, errs := config.Parse(draft.Name, []byte(b.Versions[len(b.Versions)-1].Text))
	if len(errs) > 0 {
		return api.DraftStart{}, fmt.Errorf("read the latest version: %w", config.Errors(errs))
	}
	return api.DraftStart{Answers: draft.Of(f)}, nil
}

// Draft answers as a daemon does.
func (b *Backend) Draft(_ context.Context, a api.Answers) (api.Draft, error) {
	b.called("draft %s", a.Cluster)
	return survival.Draft(a, time.Now())
}
