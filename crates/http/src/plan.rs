//! The engine's configuration, judged and made ready for use. Immutable: a reload makes a new one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::{Config, Diagnostic, HostHeader, OriginHost};
use ipnet::IpNet;

use crate::access_log::Format;
use crate::remap::{self, Origin, Remap, RuleSource};
use crate::rules::caching::CacheName;
use crate::rules::forwarded::ForwardedFields;
use crate::wire::h1::Limits;

/// An origin of a rule, as it is reached.
#[derive(Clone, Debug)]
pub(crate) struct OriginPlan {
    pub(crate) host: HostPlan,
    pub(crate) port: u16,
    /// `host:port`, as `Host` says it.
    pub(crate) authority: String,
}

/// A host by address or by name.
#[derive(Clone, Debug)]
pub(crate) enum HostPlan {
    Address(IpAddr),
    Name(Box<str>),
}

/// What belongs to one rule beside its place in the table.
#[derive(Clone, Debug)]
pub(crate) struct RulePlan {
    pub(crate) origins: Vec<OriginPlan>,
    pub(crate) host_header: HostHeader,
    /// Responses may be stored.
    pub(crate) cache: bool,
}

/// How long each wait may take. See the configuration's table for what each is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) request_head: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) client_idle: Duration,
    pub(crate) client_send: Duration,
    pub(crate) origin_connect: Duration,
    pub(crate) origin_response: Duration,
    pub(crate) origin_idle: Duration,
    pub(crate) origin_send: Duration,
    pub(crate) expect_continue: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    pub(crate) remap: Remap,
    pub(crate) rules: Vec<RulePlan>,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    /// Bytes that may wait to be sent in one direction of one transaction.
    pub(crate) body_window: usize,
    pub(crate) pipeline: usize,
    pub(crate) attempts: usize,
    pub(crate) replay: usize,
    pub(crate) via: String,
    /// The same, as `Cache-Status` says it.
    pub(crate) cache_name: CacheName,
    /// How long a stale response may stand in for an origin that is not reached.
    pub(crate) stale_if_unreachable_s: u32,
    /// Who may purge.
    pub(crate) allow: Vec<IpNet>,
    pub(crate) forwarded: ForwardedFields,
    pub(crate) access_log: Option<Format>,
}

fn bytes(count: base::ByteCount) -> usize {
    usize::try_from(count.0).unwrap_or(usize::MAX)
}

impl Plan {
    /// Judges the HTTP part of a configuration.
    ///
    /// # Errors
    /// What cannot be, each at its place in the file.
    pub fn prepare(config: &Config) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let http = &config.http;
        let sources = http.remap.iter().map(rule_source).collect();
        let remap = Remap::compile(sources).map_err(|error| {
            let place = http.remap.get(error.rule).map_or(config::Place::NOWHERE, |rule| rule.place);
            vec![config.diagnose(place, format!("this rule cannot be: {}", error.fault), None)]
        })?;
        let rules = http
            .remap
            .iter()
            .map(|rule| RulePlan {
                origins: rule.to.iter().map(|to| origin_plan(&to.value)).collect(),
                host_header: rule.host_header,
                cache: rule.cache && config.cache.ram.0 > 0,
            })
            .collect();
        let (timeouts, limits) = (&http.timeouts, &http.limits);
        Ok(Arc::new(Self {
            remap,
            rules,
            timeouts: Timeouts {
                request_head: timeouts.request_head,
                keep_alive: timeouts.keep_alive,
                client_idle: timeouts.client_idle,
                client_send: timeouts.client_send,
                origin_connect: timeouts.origin_connect,
                origin_response: timeouts.origin_response,
                origin_idle: timeouts.origin_idle,
                origin_send: timeouts.origin_send,
                expect_continue: timeouts.expect_continue,
            },
            limits: Limits { head_size: bytes(limits.head_size), head_fields: limits.head_fields },
            body_window: bytes(limits.body_window),
            pipeline: limits.pipeline,
            attempts: limits.origin_attempts as usize,
            replay: bytes(limits.request_body_replay),
            via: http.via.clone(),
            cache_name: CacheName::new(&http.via),
            stale_if_unreachable_s: u32::try_from(config.cache.stale_if_unreachable.as_secs()).unwrap_or(u32::MAX),
            allow: http.allow.clone(),
            forwarded: match http.forwarded {
                config::Forwarded::Both => ForwardedFields::Both,
                config::Forwarded::XForwardedFor => ForwardedFields::XForwardedFor,
                config::Forwarded::Forwarded => ForwardedFields::Forwarded,
                config::Forwarded::Off => ForwardedFields::Off,
            },
            access_log: http.access_log.as_ref().map(|log| match log.format {
                config::LogFormat::Squid => Format::Squid,
                config::LogFormat::Common => Format::Common,
                config::LogFormat::Combined => Format::Combined,
                config::LogFormat::Json => Format::Json,
            }),
        }))
    }
}

fn rule_source(rule: &config::RemapRule) -> RuleSource {
    let from = &rule.from.value;
    RuleSource {
        host: from.host.as_ref().map(|host| match host {
            // As `Host` says it.
            config::HostPattern::Exact(host) if host.contains(':') => remap::HostPattern::Exact(format!("[{host}]")),
            config::HostPattern::Exact(host) => remap::HostPattern::Exact(host.clone()),
            config::HostPattern::Suffix(suffix) => remap::HostPattern::Suffix(suffix.clone()),
        }),
        port: from.port,
        path: from.path.clone(),
        origins: rule
            .to
            .iter()
            .map(|to| Origin { authority: to.value.authority.clone(), path: to.value.path.clone() })
            .collect(),
        balance: match rule.balance {
            config::Balance::RoundRobin => remap::Balance::RoundRobin,
            config::Balance::ConsistentHash => remap::Balance::ConsistentHash,
        },
    }
}

fn origin_plan(to: &config::OriginUrl) -> OriginPlan {
    OriginPlan {
        host: match &to.host {
            OriginHost::Ip(address) => HostPlan::Address(*address),
            OriginHost::Name(name) => HostPlan::Name(name.as_str().into()),
        },
        port: to.port,
        authority: to.authority.clone(),
    }
}

impl OriginPlan {
    /// Its address, when no name has to be resolved for it.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            HostPlan::Address(address) => Some(SocketAddr::new(*address, self.port)),
            HostPlan::Name(_) => None,
        }
    }
}
