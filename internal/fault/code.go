package fault

// Code is one entry of the closed set of faults.
type Code uint16

// The faults. Wire codes with the prefix ModelArts or APIG are the platform's own
// (its public error reference); codes with the prefix Sluice have no counterpart there.
const (
	// Internal is any error nobody classified.
	Internal Code = iota

	// Requests and bodies.

	InvalidArgument   // a field is missing, unknown or out of range
	BadJSON           // the body is not the JSON that the operation wants
	EmptyBody         // a body is required
	BadTensor         // a tensor has the wrong name, type, shape or size
	BadImage          // an image cannot be decoded or has a kind that is not supported
	ImageTooLarge     // an image has more pixels than the model allows
	BadEncoding       // Content-Encoding is not supported
	UnsupportedMedia  // Content-Type is not supported by the operation
	BodyTooLarge      // the body is over the limit
	URITooLarge       // the request line is over the limit
	HeadersTooLarge   // a header or all of them are over the limit
	BadRequest        // the HTTP message itself is not acceptable
	MethodNotAllowed  // the path exists, the method does not
	NotImplemented    // method or transfer coding that the server does not do
	VersionNotServed  // HTTP version
	ExpectationFailed // Expect header that the server does not meet
	RequestTimeout    // the client was too slow to send
	ClientGone        // the client went away; nobody reads this
	HandshakeInvalid  // a WebSocket handshake that breaks the protocol
	HandshakeVersion  // a WebSocket handshake of a version that is not served
	OriginDenied      // a WebSocket handshake from a page of another origin
	WebSocketOff      // the service takes no WebSockets
	SchemaMismatch    // a body that does not fit the schema that its API declares

	// Who calls.

	NoCredentials       // nothing to authenticate by
	AuthFormat          // an Authorization header that cannot be parsed
	TokenInvalid        // a token that does not verify
	TokenExpired        // a token past its time
	TokenRevoked        // a token that was revoked
	TokenScope          // a token without a project
	BadPassword         // token issue: wrong name or password
	AccessKeyUnknown    // AK not known
	SignatureMismatch   // AK/SK signature does not verify
	SignatureExpired    // X-Sdk-Date too far away
	SignatureReplayed   // the same signature was used before
	AccessKeyLocked     // too many bad signatures from this source
	AppUnknown          // app key or app code not known
	AppSignature        // app signature does not verify
	AppSignatureExpired // app signature too old
	AppLocked           // too many bad app signatures from this source
	AppNotAuthorised    // the app has no grant for the service
	Forbidden           // authenticated, not allowed
	ProjectMismatch     // the resource belongs to another project
	ProjectUnavailable  // the project is disabled
	AuthTypeNotAllowed  // the service does not take this way of authenticating
	SourceDenied        // IP not allowed
	TLSRequired         // the credential may travel over TLS only

	// What is called.

	APINotFound       // no such route
	ServiceNotFound   // no such service
	ServiceNotRunning // the service exists and is not running
	ModelNotFound     // no such model
	EndpointUndefined // the model declares no such API
	ModelExists       // name and version taken
	ServiceExists     // name taken
	ModelInUse        // a service uses the model
	ModelNotReady     // the model is not loaded or not published
	ModelInvalid      // the package cannot be used
	Conflict          // concurrent change, or not possible in this state
	QuotaExceeded     // more than the project may have
	ObjectNotFound    // any other object
	ObjectExists      // any other object

	// Load.

	TooManyRequests    // the caller is over its rate
	ConcurrencyLimit   // the service's slots are taken by its callers
	Overloaded         // our queue is full
	QueueTimeout       // the deadline passed before the work started
	NoInstance         // no instance is able to serve
	BreakerOpen        // the instance is cut off by its breaker
	BackendUnreachable // dial or connection failed
	BackendFailed      // the engine answered with garbage or broke off
	BackendTimeout     // the engine did not answer in time
	ShuttingDown       // draining; try another gateway
	Unavailable        // a part that we need is away

	numCodes
)

type codeInfo struct {
	status int
	wire   string
	text   string
}

// Status is the HTTP status of the code.
func (c Code) Status() int { return c.info().status }

// Wire is the error_code of the code.
func (c Code) Wire() string { return c.info().wire }

// Text is the default message of the code.
func (c Code) Text() string { return c.info().text }

// Count is the number of codes, for arrays indexed by Code.
func Count() int { return int(numCodes) }

func (c Code) info() codeInfo {
	if c >= numCodes {
		c = Internal
	}

	return table[c]
}

//nolint:gochecknoglobals // a constant table
var table = [numCodes]codeInfo{
	Internal: {500, "ModelArts.0010", "Internal error."},

	InvalidArgument:   {400, "ModelArts.0101", "Invalid argument."},
	BadJSON:           {400, "ModelArts.4105", "Incorrect JSON format of the input data."},
	EmptyBody:         {400, "ModelArts.4202", "Empty request."},
	BadTensor:         {400, "Sluice.1001", "A tensor does not fit the model."},
	BadImage:          {400, "Sluice.1002", "The image cannot be decoded."},
	ImageTooLarge:     {413, "Sluice.1003", "The image has too many pixels."},
	BadEncoding:       {415, "Sluice.1004", "The content encoding is not supported."},
	UnsupportedMedia:  {415, "Sluice.1005", "The content type is not supported."},
	BodyTooLarge:      {413, "ModelArts.4104", "Invalid request body because the size exceeds the maximum size allowed."},
	URITooLarge:       {414, "APIG.0201", "Request URI too large."},
	HeadersTooLarge:   {431, "APIG.0201", "Request headers too large."},
	BadRequest:        {400, "APIG.0201", "API request error."},
	MethodNotAllowed:  {405, "Sluice.1006", "Method Not Allowed"},
	NotImplemented:    {501, "Sluice.1007", "Not implemented."},
	VersionNotServed:  {505, "Sluice.1008", "HTTP version not supported."},
	ExpectationFailed: {417, "Sluice.1009", "Expectation failed."},
	RequestTimeout:    {408, "ModelArts.4205", "Connection timed out."},
	ClientGone:        {499, "Sluice.1010", "The client closed the connection."},
	HandshakeInvalid:  {400, "Sluice.1011", "The WebSocket handshake is malformed."},
	HandshakeVersion:  {426, "Sluice.1012", "The only version of the WebSocket protocol that is served is 13."},
	OriginDenied:      {403, "Sluice.1013", "Pages of this origin may not open WebSockets here."},
	WebSocketOff:      {400, "Sluice.1014", "The service does not take WebSockets: websocket_upgrade is off."},
	SchemaMismatch:    {400, "Sluice.1015", "The body does not fit the schema that the API declares."},

	NoCredentials:       {401, "APIG.0301", "Incorrect IAM authentication information: x-auth-token not found"},
	AuthFormat:          {401, "ModelArts.0206", "Incorrect authorization request header format."},
	TokenInvalid:        {401, "APIG.0301", "Incorrect IAM authentication information: decrypt token fail"},
	TokenExpired:        {401, "APIG.0301", "Incorrect IAM authentication information: token expires"},
	TokenRevoked:        {401, "APIG.0307", "The token must be updated."},
	TokenScope:          {401, "ModelArts.0207", "Token must contain project info of current region."},
	BadPassword:         {401, "Sluice.2001", "The username or password is wrong."},
	AccessKeyUnknown:    {401, "APIG.0301", "Incorrect IAM authentication information: Get secretKey failed, err: ak not exist"},
	SignatureMismatch:   {401, "APIG.0301", "Incorrect IAM authentication information: verify aksk signature fail"},
	SignatureExpired:    {401, "APIG.0301", "Incorrect IAM authentication information: signature expired"},
	SignatureReplayed:   {401, "APIG.0301", "Incorrect IAM authentication information: signature already used"},
	AccessKeyLocked:     {401, "APIG.0301", "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden"},
	AppUnknown:          {401, "APIG.0303", "Incorrect app authentication information: app not found"},
	AppSignature:        {401, "APIG.0303", "Incorrect app authentication information: verify signature fail"},
	AppSignatureExpired: {401, "APIG.0303", "Incorrect app authentication information: signature expired"},
	AppLocked:           {401, "APIG.0303", "Incorrect app authentication information: app access failed to reach the limit,forbidden"},
	AppNotAuthorised:    {403, "APIG.0304", "The app is not authorised to access the API."},
	Forbidden:           {403, "APIG.0302", "The IAM user is not authorised to access the API."},
	ProjectMismatch:     {403, "ModelArts.0210", "The project id in the request URL does not match the token."},
	ProjectUnavailable:  {403, "APIG.0310", "The project is unavailable."},
	AuthTypeNotAllowed:  {401, "APIG.0305", "Incorrect authentication information: the service does not accept this way of authenticating."},
	SourceDenied:        {403, "APIG.0401", "The source address is not allowed."},
	TLSRequired:         {401, "APIG.0607", "The following protocol is supported: https"},

	APINotFound:       {404, "APIG.0101", "The API does not exist or has not been published in the environment"},
	ServiceNotFound:   {404, "ModelArts.3502", "The service does not exist."},
	ServiceNotRunning: {400, "ModelArts.4203", "Invalid request because the requested service is unavailable."},
	ModelNotFound:     {404, "ModelArts.3001", "The model does not exist."},
	EndpointUndefined: {404, "ModelArts.4204", "The API does not exist."},
	ModelExists:       {409, "ModelArts.3002", "The model already exists."},
	ServiceExists:     {409, "ModelArts.3503", "The service already exists."},
	ModelInUse:        {409, "ModelArts.3009", "The model is used by a service."},
	ModelNotReady:     {400, "ModelArts.3515", "The model is not ready."},
	ModelInvalid:      {400, "Sluice.3001", "The model package cannot be used."},
	Conflict:          {409, "ModelArts.3519", "Not possible in the present state."},
	QuotaExceeded:     {400, "ModelArts.3520", "The quota is exceeded."},
	ObjectNotFound:    {404, "Sluice.3002", "The object does not exist."},
	ObjectExists:      {409, "Sluice.3003", "The object already exists."},

	TooManyRequests:    {429, "APIG.0308", "The throttling threshold has been reached."},
	ConcurrencyLimit:   {429, "ModelArts.4206", "Excessive number of requests."},
	Overloaded:         {503, "Sluice.4001", "The service is overloaded."},
	QueueTimeout:       {503, "Sluice.4002", "The request waited too long to be started."},
	NoInstance:         {503, "ModelArts.4503", "Failed to obtain the backend service because no instance is ready."},
	BreakerOpen:        {503, "ModelArts.4302", "Due to self protection, the backend service is disconnected, please wait moment."},
	BackendUnreachable: {503, "ModelArts.4302", "Gateway forwarding error. Failed to invoke backend service."},
	BackendFailed:      {502, "APIG.0201", "Backend unavailable."},
	BackendTimeout:     {504, "APIG.0201", "Backend timeout."},
	ShuttingDown:       {503, "Sluice.4003", "The gateway is shutting down."},
	Unavailable:        {503, "Sluice.4004", "A part of the platform is unavailable."},
}
