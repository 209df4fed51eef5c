package httpapi

import (
	"context"
	"fmt"
	"time"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/cluster"
)

func (s *server) reading() {
	type none struct{}
	register(s, everyone, "GET", "/v1/ping", "ping", "Says that this node answers", func(context.Context, *none) (*body[string], error) {
		return answer("ok", nil)
	})
	register(s, needs(cluster.RoleRead), "GET", "/v1/status", "status", "The cluster as this node sees it", func(ctx context.Context, _ *none) (*body[api.Status], error) {
		return answer(s.b.Status(ctx))
	})
	register(s, needs(cluster.RoleRead), "GET", "/v1/guests", "guests", "The guests of this host, with their power", func(ctx context.Context, _ *none) (*body[[]api.Guest], error) {
		return answer(s.b.Guests(ctx))
	})
	type eventsIn struct {
		After  string    `query:"after"`
		Since  time.Time `query:"since"`
		Node   string    `query:"node"`
		Group  string    `query:"group"`
		Newest bool      `query:"newest"`
		Limit  int       `query:"limit" minimum:"0"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/events", "events", "The operator's log of the cluster", func(ctx context.Context, i *eventsIn) (*body[[]api.Event], error) {
		return answer(s.b.Events(ctx, api.EventFilter{After: cluster.EventID(i.After), Since: i.Since, Node: cluster.NodeName(i.Node),
			Group: cluster.GroupName(i.Group), Newest: i.Newest, Limit: i.Limit}))
	})
	type explainIn struct {
		ID string `query:"id"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/explain", "explain", "From the first cause to the last effect", func(ctx context.Context, i *explainIn) (*body[[]api.Event], error) {
		return answer(s.b.Explain(ctx, cluster.EventID(i.ID)))
	})
	type planIn struct {
		ID   string `path:"id"`
		Wait string `query:"wait"`
	}
	register(s, needs(cluster.RoleRead), "GET", "/v1/plans/{id}", "plan", "How a plan ended, after waiting for it", func(ctx context.Context, i *planIn) (*body[api.PlanResult], error) {
		wait, err := time.ParseDuration(i.Wait)
		if i.Wait != "" && (err != nil || wait > time.Minute) {
			return nil, toProblem(&api.Error{Code: "bad-request", Message: fmt.Sprintf("%q is not a time to wait", i.Wait), Hint: "at most 60s"})
		}
		return answer(s.b.Plan(ctx, i.ID, wait))
	})
}

// to names where something goes, if that was said.
func to(n cluster.NodeName) string {
	if n == "" {
		return ""
	}
	return " to " + string(n)
}

func (s *server) acting() {
	type groupIn struct {
		Group string `path:"group"`
		Verb  string `path:"verb"`
		Body  api.GroupOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/groups/{group}/{verb}", "group", "Start, stop, move, failover, restart, clear or release a group", func(i *groupIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s group %s%s", i.Verb, i.Group, to(i.Body.To)), &i.Body.Cause
	}, func(ctx context.Context, i *groupIn) (*body[api.Begun], error) {
		return answer(s.b.Group(ctx, cluster.GroupName(i.Group), i.Verb, i.Body))
	})
	type monitorIn struct {
		Monitor string `path:"monitor"`
		Verb    string `path:"verb"`
		Body    api.MonitorOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/monitors/{monitor}/{verb}", "monitor", "Suspend, resume or rehearse a monitor", func(i *monitorIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s monitor %s", i.Verb, i.Monitor), &i.Body.Cause
	}, func(ctx context.Context, i *monitorIn) (*body[api.Begun], error) {
		return answer(api.Begun{Text: i.Verb + " done"}, s.b.Monitor(ctx, cluster.MonitorName(i.Monitor), i.Verb, i.Body))
	})
	type mirrorIn struct {
		Mirror string `path:"mirror"`
		Verb   string `path:"verb"`
		Body   api.MirrorOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/mirrors/{mirror}/{verb}", "mirror", "Break, resume, copy, verify, grow, invalidate, force, acknowledge or resolve a mirror disk", func(i *mirrorIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s mirror disk %s", i.Verb, i.Mirror), &i.Body.Cause
	}, func(ctx context.Context, i *mirrorIn) (*body[api.Begun], error) {
		return answer(s.b.Mirror(ctx, CallerOf(ctx).Author(), cluster.ResourceName(i.Mirror), i.Verb, i.Body))
	})
	type maintenanceIn struct {
		Verb string `path:"verb"`
		Body api.MaintenanceOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/maintenance/{verb}", "maintenance", "Begin (on) or end (off) the maintenance of a node, a group or the cluster", func(i *maintenanceIn) (string, *cluster.EventID) {
		return "maintenance " + i.Verb, &i.Body.Cause
	}, func(ctx context.Context, i *maintenanceIn) (*body[api.Begun], error) {
		return answer(s.b.Maintenance(ctx, CallerOf(ctx).Author(), i.Verb, i.Body))
	})
	register(s, needs(cluster.RoleOperate), "POST", "/v1/log", "log", "Write a line of the operator's log", func(ctx context.Context, i *in[api.LogLine]) (*body[api.Logged], error) {
		return answer(s.b.Log(ctx, i.Body))
	})
}

func (s *server) switching() {
	type nodeIn struct {
		Node string `path:"node"`
		Verb string `path:"verb"`
		Body api.NodeOp
	}
	change(s, needs(cluster.RoleOperate), "POST", "/v1/nodes/{node}/{verb}", "node", "Let a node leave by plan, return, or out of its quarantine", func(i *nodeIn) (string, *cluster.EventID) {
		return fmt.Sprintf("%s node %s", i.Verb, i.Node), &i.Body.Cause
	}, func(ctx context.Context, i *nodeIn) (*body[api.Begun], error) {
		return answer(s.b.Node(ctx, cluster.NodeName(i.Node), i.Verb, i.Body))
	})
	type nodeOnlyIn struct {
		Node string `path:"node"`
		Body api.NodeOp
	}
	for verb, summary := range map[string]string{"fence": "Force a node off", "start-alone": "Let a node start without the others, who are known to be off"} {
		change(s, needs(cluster.RoleFence), "POST", "/v1/nodes/{node}/"+verb, "node-"+verb, summary, func(i *nodeOnlyIn) (string, *cluster.EventID) {
			return fmt.Sprintf("%s node %s (%s)", verb, i.Node, i.Body.Reason), &i.Body.Cause
		}, func(ctx context.Context, i *nodeOnlyIn) (*body[api.Begun], error) {
			return answer(s.b.Node(ctx, cluster.NodeName(i.Node), verb, i.Body))
		})
	}
	register(s, needs(cluster.RoleFence), "POST", "/v1/fences/check", "fence-check", "Try the fence devices of other nodes, without switching anything", func(ctx context.Context, i *in[api.FenceCheck]) (*body[[]api.NodeFence], error) {
		return answer(s.b.CheckFences(ctx, i.Body.Node))
	})
	type guestIn struct {
		Guest  string `path:"guest"`
		Action string `path:"action"`
		Body   api.GuestOp
	}
	change(s, needs(cluster.RoleFence), "POST", "/v1/guests/{guest}/{action}", "guest", "Power a guest of this host off or on, or look at it", func(i *guestIn) (string, *cluster.EventID) {
		if i.Action == string(cluster.PowerStatus) {
			return "", &i.Body.Cause
		}
		return fmt.Sprintf("power %s of guest %s", i.Action, i.Guest), &i.Body.Cause
	}, func(ctx context.Context, i *guestIn) (*body[api.Guest], error) {
		return answer(s.b.Guest(ctx, cluster.GuestName(i.Guest), i.Action, i.Body))
	})
}

func (s *server) requesting() {
	register(s, linked, "POST", "/v1/requests", "request", "What a linked cluster asks", func(ctx context.Context, i *in[api.Request]) (*body[api.Answer], error) {
		return answer(s.b.Request(ctx, CallerOf(ctx), i.Body))
	})
	change(s, needs(cluster.RoleRequest), "POST", "/v1/send", "send", "Ask linked clusters", func(i *in[api.SendRequest]) (string, *cluster.EventID) {
		return fmt.Sprintf("send request %s to %v", i.Body.Verb, i.Body.Hosts), &i.Body.Cause
	}, func(ctx context.Context, i *in[api.SendRequest]) (*body[[]api.HostAnswer], error) {
		return answer(s.b.Send(ctx, i.Body))
	})
}

func (s *server) configuring() {
	type versionIn struct {
		Version uint64 `query:"version"`
	}
	register(s, needs(cluster.RoleConfigure), "GET", "/v1/config", "config", "The cluster file, in force or of a version", func(ctx context.Context, i *versionIn) (*body[api.ConfigText], error) {
		return answer(s.b.Config(ctx, i.Version))
	})
	type none struct{}
	register(s, needs(cluster.RoleRead), "GET", "/v1/config/history", "config-history", "The versions that are kept", func(ctx context.Context, _ *none) (*body[[]api.ConfigVersion], error) {
		return answer(s.b.History(ctx))
	})
	register(s, needs(cluster.RoleConfigure), "POST", "/v1/config/plan", "config-plan", "What a change of the cluster file would do", func(ctx context.Context, i *in[api.ConfigChange]) (*body[api.ConfigPlan], error) {
		return answer(s.b.PlanConfig(ctx, i.Body))
	})
	register(s, needs(cluster.RoleConfigure), "POST", "/v1/config/apply", "config-apply", "Put a cluster file in force on all nodes", func(ctx context.Context, i *in[api.ConfigChange]) (*body[api.Begun], error) {
		return answer(s.b.ApplyConfig(ctx, CallerOf(ctx).Author(), i.Body))
	})
}

func (s *server) meeting() {
	change(s, needs(cluster.RoleConfigure), "POST", "/v1/tokens", "token", "Make a one-time token", func(i *in[api.TokenRequest]) (string, *cluster.EventID) {
		return fmt.Sprintf("make a token for %s %s", i.Body.Purpose, i.Body.Subject), nil
	}, func(ctx context.Context, i *in[api.TokenRequest]) (*body[api.TokenText], error) {
		return answer(s.b.NewToken(ctx, i.Body))
	})
	register(s, everyone, "POST", "/v1/join", "join", "Become a node, with a token", func(ctx context.Context, i *in[api.JoinRequest]) (*body[api.JoinReply], error) {
		return answer(s.b.Join(ctx, i.Body))
	})
	register(s, everyone, "POST", "/v1/link", "link", "Be allowed to ask, with a token", func(ctx context.Context, i *in[api.LinkRequest]) (*body[api.LinkReply], error) {
		return answer(s.b.RedeemLink(ctx, i.Body))
	})
	change(s, needs(cluster.RoleConfigure), "POST", "/v1/links", "link-add", "Redeem a token of another cluster", func(i *in[api.LinkToken]) (string, *cluster.EventID) {
		return "be linked to another cluster", nil
	}, func(ctx context.Context, i *in[api.LinkToken]) (*body[api.Begun], error) {
		return answer(s.b.AddLink(ctx, i.Body))
	})
	type linkIn struct {
		Name string `path:"name"`
	}
	change(s, needs(cluster.RoleConfigure), "DELETE", "/v1/links/{name}", "link-remove", "End a link", func(i *linkIn) (string, *cluster.EventID) {
		return "end the link to " + i.Name, nil
	}, func(ctx context.Context, i *linkIn) (*body[api.Begun], error) {
		return answer(api.Begun{Text: "removed"}, s.b.RemoveLink(ctx, cluster.LinkName(i.Name)))
	})
}
