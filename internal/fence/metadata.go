package fence

import (
	"encoding/xml"
	"errors"
	"fmt"
)

// metadata is what an agent says about itself.
type metadata struct {
	plug    string          // the option that names the target; "" if there is none
	options map[string]bool // the names that it knows
	off     bool            // it can switch off, from another node than the target
	status  bool
	monitor bool
	fabric  bool // it cuts a node off from something and leaves it running
}

// plugNames are the options that can name the target, the best first. port is
// the older name of plug.
var plugNames = []string{"plug", "port", "uuid", "nodename"}

// decodeMetadata reads the answer to the action metadata, as FenceAgentAPI.md of
// ClusterLabs/fence-agents describes it.
func decodeMetadata(data []byte) (metadata, error) {
	var doc struct {
		XMLName    xml.Name `xml:"resource-agent"`
		Parameters []struct {
			Name string `xml:"name,attr"`
		} `xml:"parameters>parameter"`
		Actions []struct {
			Name      string `xml:"name,attr"`
			OnTarget  string `xml:"on_target,attr"`
			Automatic string `xml:"automatic,attr"`
		} `xml:"actions>action"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		return metadata{}, fmt.Errorf("the meta-data of the agent cannot be read: %w", err)
	}
	m := metadata{options: map[string]bool{}}
	for _, p := range doc.Parameters {
		m.options[p.Name] = true
	}
	for _, name := range plugNames {
		if m.options[name] {
			m.plug = name
			break
		}
	}
	for _, a := range doc.Actions {
		switch a.Name {
		case "off":
			m.off = !isTrue(a.OnTarget)
		case "on": // what must be undone on the node itself, while it runs, has never switched it off
			m.fabric = isTrue(a.OnTarget) || isTrue(a.Automatic)
		case "status":
			m.status = !isTrue(a.OnTarget)
		case "monitor":
			m.monitor = !isTrue(a.OnTarget)
		}
	}
	switch {
	case len(doc.Actions) == 0:
		return m, errors.New("the meta-data of the agent names no actions")
	case m.fabric:
		return m, errors.New("the agent cuts a node off from its storage and leaves it running, so the node could still answer on its addresses")
	case !m.off:
		return m, errors.New("the agent cannot switch another node off")
	}
	return m, nil
}

func isTrue(attr string) bool { return attr == "1" || attr == "true" }
