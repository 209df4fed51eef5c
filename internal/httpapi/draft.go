package httpapi

import (
	"context"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

// Drafts is what the set-up wizard asks. Neither changes anything.
type Drafts interface {
	// DraftStart returns the answers that the file in force gives.
	DraftStart(ctx context.Context) (api.DraftStart, error)
	// Draft returns the file that answers come to. Answers that are refused are no
	// error: they are in the draft.
	Draft(ctx context.Context, a api.Answers) (api.Draft, error)
}

func (s *server) drafting() {
	type none struct{}
	register(s, needs(cluster.RoleConfigure), "GET", "/v1/config/draft", "config-answers", "The answers of the set-up wizard that the cluster file in force gives", func(ctx context.Context, _ *none) (*body[api.DraftStart], error) {
		return answer(s.b.DraftStart(ctx))
	})
	register(s, needs(cluster.RoleConfigure), "POST", "/v1/config/draft", "config-draft", "A cluster file from answers, and which faults it survives; nothing is changed", func(ctx context.Context, i *in[api.Answers]) (*body[api.Draft], error) {
		return answer(s.b.Draft(ctx, i.Body))
	})
}
