package niclink

import (
	"context"

	"github.com/tasuki-ha/tasuki/internal/host"
)

// Host is the LinkWatcher of production: the links of this host's network.
type Host struct{ Network host.Network }

// WatchLinks tells of a renamed interface that its old name is gone.
func (h Host) WatchLinks(ctx context.Context, changed func(name string, carrier, exists bool)) error {
	names := map[int]string{}
	return h.Network.WatchLinks(ctx, func(e host.LinkEvent) {
		l := e.Link
		old, known := names[l.Index]
		if known && old != l.Name {
			changed(old, false, false)
		}
		if e.Gone {
			delete(names, l.Index)
		} else {
			names[l.Index] = l.Name
		}
		changed(l.Name, l.Carrier, !e.Gone)
	})
}
