// Package health probes instances by the health block of their package.
//
// Prober.Watch follows one instance until its context ends and reports every change; the
// caller owns the goroutine it runs in. Prober itself only holds idle connections, which
// Close gives back; it is safe for concurrent use.
//
// Probes come quickly while an instance is loading (20 ms, growing to the period) and every
// period afterwards. Loading may take as long as it wants: its limit is the deployment
// timeout. An instance that was able to serve and then fails FailureThreshold probes in a
// row is reported as hung; one that says that it is draining or failed is believed at once.
package health
