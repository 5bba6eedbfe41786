package autodiff

import (
	"fmt"
	"testing"

	"github.com/pellucid/pellucid/engine"
)

// frees reports whether constant i of a check may be an input that has a rule.
func (c *check) frees(i int) bool {
	at := len(c.in) + i
	return c.constants[i].DType() == engine.Float64 && refusedInputs[c.op][at] == ""
}

// TestEveryInput holds the gradients by what is a constant in TestCentralDifferences.
func TestEveryInput(t *testing.T) {
	for i, c := range allChecks() {
		c.free = true
		has := false
		for k, v := range c.constants {
			has = has || v != nil && c.frees(k)
		}
		if c.in == nil || !has {
			continue
		}
		t.Run(fmt.Sprintf("%d %s", i, c.op), func(t *testing.T) {
			p, in := c.program(t)
			compareCentral(t, p, in, fmt.Sprintf("y%d", c.target), c.whole)
		})
	}
}
