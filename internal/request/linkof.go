package request

import "github.com/tasuki-ha/tasuki/internal/cluster"

// LinkOf returns the linked cluster that a host of a request belongs to, or ""
// where it is not known or not clear.
func (s *Sender) LinkOf(host string) cluster.LinkName {
	if found := match(s.o.Links(), host); len(found) == 1 {
		return found[0].link.Name
	}
	return ""
}
