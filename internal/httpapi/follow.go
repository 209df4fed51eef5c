package httpapi

import (
	"encoding/json"
	"net/http"
	"time"
)

// keepAlive is how often a stream without news shows that it lives: an empty
// line.
const keepAlive = 10 * time.Second

// follow streams new events, one JSON object a line, until the caller goes.
func (s *server) follow(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	events := s.b.Follow(r.Context())
	enc := json.NewEncoder(w)
	_ = rc.Flush() // the caller knows now that nothing that follows is missed
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, open := <-events:
			if !open || e.ID != "" && enc.Encode(e) != nil {
				return
			}
		case <-tick.C:
			if !s.still(r.Context()) {
				return
			}
			if _, err := w.Write([]byte("\n")); err != nil {
				return
			}
		}
		if rc.Flush() != nil {
			return
		}
	}
}
