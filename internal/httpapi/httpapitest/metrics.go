package httpapitest

import "net/http"

// Metrics answers with nothing.
func (b *Backend) Metrics(http.ResponseWriter, *http.Request) { b.called("metrics") }
