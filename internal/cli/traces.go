package cli

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/carousel-ml/carousel"
)

// Times and sizes of the exporter of traces. Spans wait in a queue and are left out when it is
// full, so a collector that is slow or away never holds a request up.
const (
	tracesTime  = 10 * time.Second // for a batch of spans to be taken
	tracesFlush = 2 * time.Second  // for those that are left at the end
	tracesQueue = 8192
	mostTraced  = 256 // bytes of an attribute
)

// openTraces returns a provider whose spans are sent to a receiver of OTLP over HTTP, in
// batches; one without a path is a base, as in OpenTelemetry's own settings. ratio is the part of the traces that begin here which is sent. flush sends what is left.
func openTraces(to string, ratio float64, log *slog.Logger) (provider *sdktrace.TracerProvider, flush func(), err error) {
	ctx := context.Background() // nothing is sent yet
	u, err := url.Parse(to)
	if err != nil {
		return nil, nil, err
	}
	if strings.Trim(u.Path, "/") == "" {
		u = u.JoinPath("v1", "traces")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(tracesTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: tracesTime, MaxElapsedTime: tracesTime}))
	if err != nil {
		return nil, nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "carousel"), attribute.String("service.version", carousel.Version())),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, nil, err
	}
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = mostTraced
	provider = sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))),
		sdktrace.WithBatcher(&collector{SpanExporter: exporter, log: log}, sdktrace.WithMaxQueueSize(tracesQueue)))
	return provider, func() {
		ctx, stop := context.WithTimeout(ctx, tracesFlush)
		defer stop()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last traces do not reach their collector, and are lost", "reason", err.Error())
		}
	}, nil
}

// collector is where spans are sent. It tells the log when they do not arrive, once until they
// do again.
type collector struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	lost int // since they arrived last
}

// ExportSpans is called for one batch at a time.
func (c *collector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil:
		if c.lost == 0 {
			c.log.Warn("traces do not reach their collector, and are lost until they do", "reason", err.Error())
		}
		c.lost += len(spans)
	case c.lost > 0:
		c.log.Info("traces reach their collector again", "lost", c.lost)
		c.lost = 0
	}
	return nil // OpenTelemetry would write it to stderr in its own form
}
