package autodiff

import "github.com/pellucid/pellucid/engine/graph"

// HasRule reports whether an operator has a rule in any version of its set.
func HasRule(op, domain string) bool {
	for version := range 40 {
		if ruleOf[float64](&graph.Node{Op: op, Domain: domain, Version: version}) != nil {
			return true
		}
	}
	return false
}
