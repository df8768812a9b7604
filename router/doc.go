// Package router decides which model version answers a request, and hands the choice of an
// instance to router/pool.
//
// Order of decision: rules, then stickiness, then weights. Stickiness and weights look only
// at versions that have an instance able to serve. A Route is compiled once per change and
// never changes; its pools outlive it.
package router
