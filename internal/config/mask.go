package config

import (
	"fmt"

	yaml "go.yaml.in/yaml/v4"
)

// Masked returns the text of a cluster file in which a mark stands for each
// secret of its fence devices. It is as valid as the file, and the same but for
// them.
func Masked(text string) (string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", fmt.Errorf("read the cluster file: %w", err)
	}
	if len(doc.Content) == 0 {
		return text, nil
	}
	found := false
	each(child(doc.Content[0], "fences"), func(_ string, device *yaml.Node) {
		each(child(device, "options"), func(option string, value *yaml.Node) {
			if Secret(option) {
				found = true
				*value = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: shown(option, value.Value)}
			}
		})
	})
	if !found {
		return text, nil
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return "", fmt.Errorf("write the cluster file: %w", err)
	}
	return string(out), nil
}

// each calls f for every pair of a mapping.
func each(n *yaml.Node, f func(key string, value *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i].Value, n.Content[i+1])
	}
}

// child returns the value of a key of a mapping, or nil.
func child(n *yaml.Node, key string) (found *yaml.Node) {
	each(n, func(k string, v *yaml.Node) {
		if k == key {
			found = v
		}
	})
	return found
}
