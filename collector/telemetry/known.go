package telemetry

import (
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/otel/attribute"
)

// Where fields of models are private, a span of another program may say a private value
// in its own words: in a name, a message, an attribute, long before or after the
// prediction itself is heard of. There is no end to the ways of writing it, so such texts
// are not searched but left: what stays is what is one of a few values by OpenTelemetry's
// conventions, and what the operator names.

// knownTexts keeps of spans what is known not to repeat anything. The zero value keeps
// only what conventions fix.
type knownTexts struct {
	texts []string               // names and messages that the operator vouches for
	keys  []string               // attributes of which he does, whatever their values
	model func(name string) bool // reports whether a model is served or watched here
}

// leftOut is the attribute that says how many texts of a span were not kept.
var leftOut = string(attribute.Key("ml.span.left_out"))

// KnownError reports whether an error of another program is one of a few by conventions.
func KnownError(text string) bool {
	var k knownTexts
	return k.attribute(errorType, text)
}

// methods are HTTP's (RFC 9110, RFC 5789), as OpenTelemetry has them in attributes and names.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "_OTHER"}

// fixed are the values of attributes that OpenTelemetry's semantic conventions (1.38)
// list, without those of gen_ai.*: a model.yaml may say that one of these is private.
var fixed = map[string][]string{
	"http.request.method":         methods,
	"http.method":                 methods,
	"url.scheme":                  {"http", "https", "ws", "wss"},
	"http.scheme":                 {"http", "https"},
	"network.protocol.name":       {"http", "amqp", "mqtt", "grpc", "kafka"},
	"network.protocol.version":    {"1.0", "1.1", "2", "2.0", "3"},
	"http.flavor":                 {"1.0", "1.1", "2", "2.0", "3"},
	"network.transport":           {"tcp", "udp", "quic", "unix", "pipe"},
	"network.type":                {"ipv4", "ipv6"},
	"rpc.system":                  {"grpc", "java_rmi", "dotnet_wcf", "apache_dubbo", "connect_rpc", "jsonrpc", "onc_rpc"},
	"rpc.system.name":             {"grpc", "dubbo", "connectrpc", "jsonrpc"},
	"rpc.response.status_code":    rpcCodes,
	"error.type":                  append([]string{"_OTHER", "timeout", "cancelled"}, rpcCodes...),
	"messaging.system":            {"activemq", "aws_sns", "aws_sqs", "eventgrid", "eventhubs", "gcp_pubsub", "jms", "kafka", "pulsar", "rabbitmq", "rocketmq", "servicebus"},
	"messaging.operation.type":    {"create", "send", "receive", "process", "settle"},
	"db.system":                   databases,
	"db.system.name":              databases,
	"telemetry.sdk.language":      {"cpp", "dotnet", "erlang", "go", "java", "nodejs", "php", "python", "ruby", "rust", "swift", "webjs"},
	"telemetry.sdk.name":          {"opentelemetry"},
	"deployment.environment":      {"production", "staging", "test", "development"},
	"deployment.environment.name": {"production", "staging", "test", "development"},
	"exception.escaped":           {"true", "false"},
}

// rpcCodes are gRPC's (grpc/doc/statuscodes.md).
var rpcCodes = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

var databases = []string{
	"cassandra", "clickhouse", "cockroachdb", "couchbase", "couchdb", "dynamodb", "aws.dynamodb", "elasticsearch", "hbase", "mariadb", "memcached",
	"microsoft.sql_server", "mssql", "mongodb", "mysql", "neo4j", "opensearch", "oracle", "oracle.db", "postgresql", "redis", "snowflake", "sqlite", "trino",
}

// ranges are attributes that are a whole number between two.
var ranges = map[string][2]int{
	"http.response.status_code": {100, 599},
	"http.status_code":          {100, 599},
	"rpc.grpc.status_code":      {0, 16},
	"error.type":                {400, 599},
}

// text is s where the operator has named it.
func (k *knownTexts) text(s string) (string, bool) {
	return s, s != "" && slices.Contains(k.texts, s)
}

// name is what a span is called: its own name where that is known, a method of HTTP
// where it begins with one, else its kind.
func (k *knownTexts) name(s ptrace.Span) (name string, whole bool) {
	if name, ok := k.text(s.Name()); ok {
		return name, true
	}
	method, _, more := strings.Cut(s.Name(), " ")
	if slices.Contains(methods, method) {
		return method, !more
	}
	return strings.ToLower(s.Kind().String()), s.Name() == ""
}

// attributes are those that are known, and how many are not; never nil.
func (k *knownTexts) attributes(m pcommon.Map) (out map[string]string, left int) {
	out = map[string]string{}
	for key, v := range m.All() {
		if value(key) {
			continue // is nowhere kept as an attribute
		}
		if text := v.AsString(); k.attribute(key, text) {
			out[key] = text
		} else {
			left++
		}
	}
	return out, left
}

func (k *knownTexts) attribute(key, text string) bool {
	switch {
	case slices.Contains(fixed[key], text):
		return true
	case key == mlModelName:
		return k.model != nil && k.model(text)
	}
	if r, ok := ranges[key]; ok {
		if n, err := strconv.Atoi(text); err == nil && r[0] <= n && n <= r[1] {
			return true
		}
	}
	return slices.Contains(k.keys, key)
}

// spans turns traces into rows, as spansOf does, with what is known of them.
func (k *knownTexts) spans(traces ptrace.Traces) (spans []Span, rejected int64) {
	for _, rs := range traces.ResourceSpans().All() {
		resource, _ := k.attributes(rs.Resource().Attributes())
		row := Span{ResourceAttributes: resource}
		if v, ok := rs.Resource().Attributes().Get("service.name"); ok {
			// The program's own name, which is given once for all that it does.
			row.ServiceName = v.AsString()
			resource["service.name"] = row.ServiceName
		}
		for _, ss := range rs.ScopeSpans().All() {
			row.ScopeName, row.ScopeVersion = "", ""
			if name, ok := k.text(ss.Scope().Name()); ok {
				row.ScopeName = name
			}
			for _, s := range ss.Spans().All() {
				if !storable(s) {
					rejected++
					continue
				}
				spans = append(spans, k.span(s, row))
			}
		}
	}
	return spans, rejected
}

// span completes the row of a span that has what its resource and scope say.
func (k *knownTexts) span(s ptrace.Span, row Span) Span {
	placed(s, &row)
	var left int
	row.SpanAttributes, left = k.attributes(s.Attributes())
	name, whole := k.name(s)
	if row.SpanName = name; !whole {
		left++
	}
	if message := s.Status().Message(); message != "" {
		if _, ok := k.text(message); ok {
			row.StatusMessage = message
		} else {
			left++
		}
	}
	for _, e := range s.Events().All() {
		name, ok := k.text(e.Name())
		if !ok {
			name = "event"
			if e.Name() == "exception" {
				name = e.Name()
			} else {
				left++
			}
		}
		attributes, n := k.attributes(e.Attributes())
		left += n
		row.Events = append(row.Events, SpanEvent{Timestamp: eventTime(e, row.Timestamp), Name: name, Attributes: attributes})
	}
	for _, l := range s.Links().All() {
		attributes, n := k.attributes(l.Attributes())
		left += n
		row.Links = append(row.Links, SpanLink{TraceID: l.TraceID().String(), SpanID: l.SpanID().String(), Attributes: attributes})
	}
	if left > 0 {
		row.SpanAttributes[leftOut] = strconv.Itoa(left)
	}
	return row
}
