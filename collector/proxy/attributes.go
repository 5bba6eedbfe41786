package proxy

import "go.opentelemetry.io/otel/attribute"

// The ml.* registry, as far as this package sets it, and the general attributes
// of OpenTelemetry that go with it. Values of features never become attributes.
const (
	attrModelName     = attribute.Key("ml.model.name")
	attrModelVersion  = attribute.Key("ml.model.version")
	attrModelDigest   = attribute.Key("ml.model.digest")
	attrFramework     = attribute.Key("ml.model.framework")
	attrTask          = attribute.Key("ml.task")
	attrPredictionID  = attribute.Key("ml.prediction.id")
	attrBatchSize     = attribute.Key("ml.batch.size")
	attrFeatureCount  = attribute.Key("ml.feature.count")
	attrExplainMethod = attribute.Key("ml.explain.method")

	attrErrorType  = attribute.Key("error.type")
	attrHTTPMethod = attribute.Key("http.request.method")
	attrHTTPStatus = attribute.Key("http.response.status_code")
	attrHTTPRoute  = attribute.Key("http.route")
	attrURLPath    = attribute.Key("url.path")
)
