package repository

import (
	"context"
	"errors"
	"fmt"

	"github.com/pellucid/pellucid/collector"
	"github.com/pellucid/pellucid/engine/golden"
)

// errGate marks a version that loaded but does not reproduce its golden data.
var errGate = errors.New("golden data does not reproduce")

// gate runs the version's golden data, if it has any.
func (r *Repository) gate(ctx context.Context, s source, v *collector.ModelVersion) error {
	if s.bare {
		return nil
	}
	err := golden.Check(ctx, v.Model, s.dir)
	var m *golden.Mismatch
	if errors.As(err, &m) && v.Config.PrivateFeature() != "" {
		return fmt.Errorf("%w: %s", errGate, m.Place()) // an output may repeat a private input
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGate, err)
	}
	return nil
}
