package spec

// PackageConfig is config.json of a model package, as far as Sluice uses it. Fields that
// the platform writes and Sluice does not use are accepted and ignored; inside Serving
// an unknown key is an error. ParsePackageConfig reads and validates it.
type PackageConfig struct {
	ModelType      string `json:"model_type"`
	ModelAlgorithm string `json:"model_algorithm,omitempty"`
	APIs           []API  `json:"apis,omitempty"`
	// SchemaCheck makes gateways check the JSON of requests against the schemas in APIs.
	SchemaCheck bool `json:"schema_check,omitempty"`

	Health          *Health `json:"health,omitempty"`
	ReadinessHealth *Health `json:"readiness_health,omitempty"`
	StartupHealth   *Health `json:"startup_health,omitempty"`

	// Custom engines: a command run in the package directory with PORT set.
	Command    []string          `json:"command,omitempty"`
	Envs       map[string]string `json:"envs,omitempty"`
	WorkingDir string            `json:"working_dir,omitempty"`
	User       string            `json:"user,omitempty"`
	Protocol   string            `json:"protocol,omitempty"` // http | https | ws | wss
	Port       int               `json:"port,omitempty"`     // 0: chosen by the launcher
	// TLSVerify makes gateways verify the certificate of an engine that speaks TLS, against the PEM file
	// TLSCACert of the package or else the system's roots.
	TLSVerify bool   `json:"tls_verify,omitempty"`
	TLSCACert string `json:"tls_ca_cert,omitempty"`
	// CAPEM is the content of TLSCACert; the registry fills it.
	CAPEM string `json:"ca_pem,omitempty"`

	// External engines: fixed addresses.
	Endpoints []Endpoint `json:"endpoints,omitempty"`

	// Serving configures sluice-runtime. Nil means defaults.
	Serving *Serving `json:"serving,omitempty"`
}

// Engine derives the engine kind from model_type.
func (c *PackageConfig) Engine() EngineKind {
	switch {
	case c.ModelType == string(EngineExternal):
		return EngineExternal
	case len(c.Command) > 0 || c.ModelType == string(EngineCustom) || c.ModelType == "Image":
		return EngineCustom
	default:
		return EngineONNX
	}
}

// API is a declared path of an engine.
type API struct {
	Protocol string         `json:"protocol,omitempty"`
	URL      string         `json:"url"`
	Method   string         `json:"method"`
	Request  *APIMessage    `json:"request,omitempty"`
	Response *APIMessage    `json:"response,omitempty"`
	Extra    map[string]any `json:"-"`
}

// APIMessage describes a request or a response; Data is a JSON Schema.
type APIMessage struct {
	ContentType string `json:"Content-type,omitempty"`
	Data        any    `json:"data,omitempty"`
}

// Health is a probe. The v1 platform writes the numbers as strings; both forms are read.
type Health struct {
	CheckMethod         string `json:"check_method,omitempty"` // HTTP | EXEC
	Protocol            string `json:"protocol,omitempty"`
	URL                 string `json:"url,omitempty"`
	Command             string `json:"command,omitempty"`
	InitialDelaySeconds Int    `json:"initial_delay_seconds,omitempty"`
	TimeoutSeconds      Int    `json:"timeout_seconds,omitempty"`
	PeriodSeconds       Int    `json:"period_seconds,omitempty"`
	FailureThreshold    Int    `json:"failure_threshold,omitempty"`
}

// Endpoint is a fixed address of an External engine.
type Endpoint struct {
	URL     string            `json:"url"`
	Weight  int               `json:"weight,omitempty"` // 0 means 1
	Headers map[string]string `json:"headers,omitempty"`
	// PathPrefix replaces the leading "/" of the forwarded path.
	PathPrefix string `json:"path_prefix,omitempty"`
	// InsecureSkipVerify accepts any certificate; CACert is a PEM file in the package.
	InsecureSkipVerify bool   `json:"insecure_skip_verify,omitempty"`
	CACert             string `json:"ca_cert,omitempty"`
	// CAPEM is the content of CACert; the registry fills it.
	CAPEM string `json:"ca_pem,omitempty"`
}

// ServingVersion is the newest version of the serving block.
const ServingVersion = 1

// Serving is the block "serving" of config.json: how sluice-runtime runs the model.
type Serving struct {
	// Version of this block; 0 or absent means 1.
	Version int `json:"version,omitempty"`
	// ModelFile inside the package; default "model.onnx".
	ModelFile string `json:"model_file,omitempty"`
	// MaxBatchSize in rows. 0: from the model (64 when every input's first dimension is dynamic
	// and named alike, else no batching). 1: no batching.
	MaxBatchSize int `json:"max_batch_size,omitempty"`
	// Instances is the number of executors; 0 means 1.
	Instances int        `json:"instances,omitempty"`
	Threads   *Threads   `json:"threads,omitempty"`
	Execution *Execution `json:"execution,omitempty"`
	Batching  *Batching  `json:"batching,omitempty"`
	Warmup    *Warmup    `json:"warmup,omitempty"`

	// Preprocess turns the fields of a POST / into model inputs; Postprocess turns outputs into the answer.
	Preprocess  []Preprocess  `json:"preprocess,omitempty"`
	Postprocess []Postprocess `json:"postprocess,omitempty"`
	// Labels of classes, or LabelsFile in the package with one label a line.
	Labels     []string      `json:"labels,omitempty"`
	LabelsFile string        `json:"labels_file,omitempty"`
	Limits     ServingLimits `json:"limits,omitzero"`
}

// Threads of one executor. 0 means 1.
type Threads struct {
	IntraOp int `json:"intra_op,omitempty"`
	InterOp int `json:"inter_op,omitempty"`
}

// Execution chooses the provider.
type Execution struct {
	// Provider: cpu (default), cuda, tensorrt, webgpu, openvino or auto.
	Provider string `json:"provider,omitempty"`
	// Fallback providers, tried in order; Strict refuses to fall back.
	Fallback        []string `json:"fallback,omitempty"`
	Strict          bool     `json:"strict,omitempty"`
	DeviceID        int      `json:"device_id,omitempty"`
	ArenaLimitBytes int64    `json:"arena_limit_bytes,omitempty"`
	// CacheOptimizedModel keeps the graph-optimised model in the node cache.
	CacheOptimizedModel bool `json:"cache_optimized_model,omitempty"`
}

// Batching configures the dynamic batcher.
type Batching struct {
	Disabled bool `json:"disabled,omitempty"`
	// PreferredBatchSizes in rows, ascending.
	PreferredBatchSizes []int `json:"preferred_batch_sizes,omitempty"`
	// MaxQueueDelayMicroseconds a batch may wait for more rows while an executor is free. Default 0.
	MaxQueueDelayMicroseconds int64 `json:"max_queue_delay_microseconds,omitempty"`
	// MaxQueueRows bounds the queue; 0 means 16 batches.
	MaxQueueRows int `json:"max_queue_rows,omitempty"`
	// PriorityLevels; 0 or 1 means no priorities. Level 1 is the highest.
	PriorityLevels  int  `json:"priority_levels,omitempty"`
	DefaultPriority int  `json:"default_priority,omitempty"`
	StrictPriority  bool `json:"strict_priority,omitempty"` // default is weighted
	// DefaultTimeoutMicroseconds in the queue; 0 means the request's own deadline only.
	DefaultTimeoutMicroseconds int64 `json:"default_timeout_microseconds,omitempty"`
	// PadToBuckets pads batches up to the next power of two or preferred size.
	PadToBuckets bool `json:"pad_to_buckets,omitempty"`
}

// Warmup runs the model before it counts as ready.
type Warmup struct {
	Disabled bool `json:"disabled,omitempty"`
	// BatchSizes to run; default is 1 and MaxBatchSize.
	BatchSizes []int `json:"batch_sizes,omitempty"`
	// Shapes gives concrete values for dynamic dimensions (other than the batch), by input name.
	Shapes map[string][]int64 `json:"shapes,omitempty"`
}

// Preprocess fills one model input from a field of the request.
type Preprocess struct {
	Input string `json:"input"`           // model input
	Field string `json:"field,omitempty"` // request field; default: any of image, images, or the input's name
	Image *Image `json:"image,omitempty"` // decode an image
}

// Image is a decoding pipeline. The stages, in this order; between them samples are real numbers
// on the scale 0..255 and nothing is rounded:
//
//  1. Decode. A 16-bit sample counts as v/257; palettes are resolved; alpha is not premultiplied.
//  2. Orient by EXIF (JPEG).
//  3. Composite over Background where the picture has alpha: v*a + b*(1-a), a in 0..1.
//  4. Grey when Channels is 1: 0.299 R + 0.587 G + 0.114 B. A grey picture gives three equal channels when Channels is 3.
//  5. Decide Invert "auto": take the luma (as in 4) of every pixel of the first and the last row and column, each
//     pixel once, sorted; the background is light when element (n-1)/2 is greater than (min+max)/2, min and max over
//     the luma of the whole picture. A light background means invert.
//  6. CenterContent, or the crop of Fit "cover".
//  7. Resize to Width x Height; padding of Fit "contain" takes the lower median of the border pixels, per channel.
//  8. Invert, if decided: v = 255 - v.
//  9. StretchContrast.
//  10. value = (v*Scale - Mean[c]) / Std[c], then Layout.
//
// Resize "area" is the exact weighted mean of the source rectangle that an output pixel covers, for shrinking
// and for enlarging (an equal size is the identity). "bilinear" (tent) and "bicubic" (Catmull-Rom, a = -0.5) widen
// their kernel when shrinking, so that no source pixel is lost. "nearest" takes source pixel floor((i+0.5)*source/target).
type Image struct {
	Width    int `json:"width"`
	Height   int `json:"height"`
	Channels int `json:"channels"` // 1 or 3
	// Layout of one row: CHW (default), HWC, or FLAT (a vector of width*height*channels in HWC order).
	Layout string `json:"layout,omitempty"`
	// Resize: area (default), bilinear, bicubic, nearest.
	Resize string `json:"resize,omitempty"`
	// Fit: stretch (default), contain (pad with the background), cover (centre crop).
	Fit string `json:"fit,omitempty"`
	// Background under transparent pixels: white (default), black, or auto: white when the mean luma of the picture
	// weighted by alpha is below 127.5, else black, so that what is drawn stays visible.
	Background string `json:"background,omitempty"`
	// Invert: never (default), always, auto (when the background is light; stage 5).
	Invert string `json:"invert,omitempty"`
	// CenterContent crops to the content's bounding box, padded by Margin (fraction of its longer side) on each side
	// and to a square, before resizing. Content is what differs from the lower median of the border by more than
	// a quarter of max-min.
	CenterContent bool    `json:"center_content,omitempty"`
	Margin        float64 `json:"margin,omitempty"`
	// StretchContrast maps the darkest sample of the resized picture to 0 and the brightest to 255, over all channels
	// together; a picture of one value becomes 0.
	StretchContrast bool `json:"stretch_contrast,omitempty"`
	// Scale 0 means 1/255. Empty Mean means 0, empty Std means 1.
	Scale float64   `json:"scale,omitempty"`
	Mean  []float64 `json:"mean,omitempty"`
	Std   []float64 `json:"std,omitempty"`
	BGR   bool      `json:"bgr,omitempty"`
}

// Postprocess turns one model output into members of the answer.
type Postprocess struct {
	Output string `json:"output"`
	// Kind: classification (default; predicted_label and scores) or tensor (the values under Field).
	Kind string `json:"kind,omitempty"`
	// Activation applied first: none (default), softmax, sigmoid.
	Activation string `json:"activation,omitempty"`
	TopK       int    `json:"top_k,omitempty"` // 0 means 5
	// Threshold drops scores below it.
	Threshold float64 `json:"threshold,omitempty"`
	Field     string  `json:"field,omitempty"`
}

// ServingLimits bound what a request may ask of the model.
type ServingLimits struct {
	MaxImagePixels int64 `json:"max_image_pixels,omitempty"` // 0 means 25,000,000
	MaxImages      int   `json:"max_images,omitempty"`       // files in one request; 0 means 64
	MaxBodyBytes   int64 `json:"max_body_bytes,omitempty"`   // 0 means the worker's limit
}
