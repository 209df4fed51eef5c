package console

import (
	"errors"
	"sync"
	"time"
)

// maxSessions bounds how many sessions there are at a time at one node.
const maxSessions = 10_000

// sessions keeps sessions in memory: they end with the daemon.
type sessions struct {
	mu  sync.Mutex
	all map[string]session
}

type session struct {
	data  []byte
	until time.Time
}

// Find returns what a session holds, if it has not ended.
func (s *sessions) Find(token string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is, found := s.all[token]
	if !found || time.Now().After(is.until) {
		return nil, false, nil
	}
	return is.data, true, nil
}

// Commit keeps a session until that time.
func (s *sessions) Commit(token string, data []byte, until time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for token, is := range s.all {
		if now.After(is.until) {
			delete(s.all, token)
		}
	}
	if len(s.all) >= maxSessions {
		return errors.New("there are too many sessions: sign out elsewhere, or use another node")
	}
	s.all[token] = session{data, until}
	return nil
}

// Delete ends a session.
func (s *sessions) Delete(token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, token)
	return nil
}
