package request

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"github.com/tasuki-ha/tasuki/api"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 10

// post sends JSON by a connection and returns the status and the whole body.
func post(ctx context.Context, conn *http.ClientConn, address netip.AddrPort, path string, body *bytes.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address.String()+path, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, application/problem+json")
	resp, err := conn.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, err
	}
	if len(data) > maxAnswer {
		return 0, nil, fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return resp.StatusCode, data, nil
}

// read says what a response to a request is.
func read(status int, data []byte) (*api.Answer, *api.Error, answered) {
	if status >= 200 && status < 300 {
		var a api.Answer
		if err := json.Unmarshal(data, &a); err != nil {
			return nil, notOurs(err), answeredNot
		}
		return &a, nil, answeredYes
	}
	e, ok := problem(status, data)
	switch {
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return nil, e, answeredBusy
	case !ok:
		return nil, e, answeredNot
	}
	return nil, e, answeredYes
}

func notOurs(err error) *api.Error {
	return refuse("bad-answer", "does tasuki listen there, in a version like this one?", "the answer makes no sense: %v", err)
}

// problem reads an error in the form of RFC 9457 with our members code and
// hint, or an api.Error. It says whether it is one of tasuki's.
func problem(status int, data []byte) (*api.Error, bool) {
	var p struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
		Title   string `json:"title"`
		Hint    string `json:"hint"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return notOurs(fmt.Errorf("status %d, and no reason given", status)), false
	}
	e := &api.Error{Code: p.Code, Message: p.Message, Hint: p.Hint}
	for _, text := range []string{p.Detail, p.Title, fmt.Sprintf("refused with status %d", status)} {
		if e.Message == "" {
			e.Message = text
		}
	}
	if e.Code != "" {
		return e, true
	}
	e.Code = fmt.Sprintf("http-%d", status)
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		e.Code = "forbidden"
	}
	return e, p.Message+p.Detail+p.Title != ""
}

// decode reads a successful answer into out, if the caller wants it.
func decode(data []byte, out any) error {
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return notOurs(err)
	}
	return nil
}
