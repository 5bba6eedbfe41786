package collector

import "context"

// OwnActor is who acts where nobody asked: Pellucid itself.
const OwnActor = "pellucid"

type actorKey struct{}

// WithActor returns a context whose acts are actor's.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorOf returns who acts in ctx: before there is authentication, the address that
// a request came from.
func ActorOf(ctx context.Context) string {
	if a, ok := ctx.Value(actorKey{}).(string); ok {
		return a
	}
	return OwnActor
}
