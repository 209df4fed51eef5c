package admission

import (
	"reflect"

	"github.com/tasuki-ha/tasuki/internal/config"
)

// sameResources says whether two versions of a group drive the same resources
// with the same settings.
func sameResources(a, b *config.Group) bool {
	return reflect.DeepEqual(a.Resources, b.Resources)
}
