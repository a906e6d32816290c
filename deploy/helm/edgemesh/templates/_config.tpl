{{/* What would come up and never work is refused before anything is installed. */}}
{{- define "edgemesh.checked" -}}
{{- $agent := .Values.agent -}}
{{- if and $agent.enabled (eq $agent.source "cloud") (not $agent.cloud.servers) -}}
{{- fail (printf "agent.cloud.servers is empty, and agent.source is cloud: say at which HOST:PORT nodes reach the cloud's hub, such as the address of a machine of the cluster and cloud.hub.service.nodePort: --set 'agent.cloud.servers={192.0.2.10:%v}'" (.Values.cloud.hub.service.nodePort | default "PORT")) -}}
{{- end -}}
{{- range $agent.cloud.servers -}}
{{- if not (regexMatch "^([^:/[:space:]]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$" .) -}}
{{- fail (printf "agent.cloud.servers: `%s` is no HOST:PORT, such as cloud.example:31000, 192.0.2.10:31000 or [2001:db8::1]:31000" .) -}}
{{- end -}}
{{- end -}}
{{- range $agent.dns.listen -}}
{{- if not (regexMatch "^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$" .) -}}
{{- fail (printf "agent.dns.listen: `%s` is no IP:PORT, such as 127.0.0.1:15053 or 169.254.96.16:53" .) -}}
{{- end -}}
{{- end -}}
{{- $metrics := dig "metrics" "listen" "" $agent.config -}}
{{- if and $metrics (not (hasSuffix (printf ":%v" $agent.metricsPort) $metrics)) -}}
{{- fail (printf "agent.config.metrics.listen: %s has another port than agent.metricsPort, %v, where the probes ask: set agent.metricsPort" $metrics $agent.metricsPort) -}}
{{- end -}}
{{- if hasKey $agent.config "dataDir" -}}
{{- fail "agent.config.dataDir: the Pod has /var/lib/edgemesh of its node, and nothing else that it may write to: remove it" -}}
{{- end -}}
{{- $router := .Values.cloud.router -}}
{{- if and .Values.cloud.enabled $router.enabled -}}
{{- $ways := list -}}
{{- range $key := list "tokenSecret" "clientCaSecret" "auth" -}}
{{- if get $router $key -}}{{- $ways = append $ways $key -}}{{- end -}}
{{- end -}}
{{- if ne (len $ways) 1 -}}
{{- fail (printf "cloud.router.enabled lets callers in by %s: set exactly one of cloud.router.tokenSecret, cloud.router.clientCaSecret, or cloud.router.auth: none where everybody may call" (ternary "nothing" (join " and " $ways) (empty $ways))) -}}
{{- end -}}
{{- if and (not $router.tlsSecret) (not $router.auth) -}}
{{- fail (printf "cloud.router.%s needs cloud.router.tlsSecret: a Secret of type kubernetes.io/tls, or what callers show would travel in the clear" (first $ways)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.cloud.enabled (eq .Values.cloud.persistence.type "hostPath") (not .Values.cloud.nodeSelector) -}}
{{- fail "cloud.persistence.type is hostPath, and cloud.nodeSelector is empty: name the node that has the folder, or the authority is another one after a move: --set 'cloud.nodeSelector.kubernetes\\.io/hostname=NODE'" -}}
{{- end -}}
{{- end -}}

{{/* agent.yaml */}}
{{- define "edgemesh.agent-config" -}}
{{- $agent := .Values.agent -}}
{{- $config := dict
  "dataDir" "/var/lib/edgemesh"
  "proxy" (dict "nodePorts" $agent.nodePorts)
  "dns" (dict "listen" $agent.dns.listen "intercept" $agent.dns.intercept "domain" .Values.clusterDomain)
  "peer" (dict "listen" (printf "0.0.0.0:%d" (int $agent.peerPort)))
  "metrics" (dict "listen" (printf "0.0.0.0:%d" (int $agent.metricsPort)))
  "accessLog" $agent.accessLog -}}
{{- if $agent.cloud.servers -}}
{{- $_ := set $config "cloud" (dict "servers" $agent.cloud.servers "tokenFile" "/run/secrets/edgemesh/token") -}}
{{- end -}}
{{- if eq $agent.source "cloud" -}}
{{- $_ := set $config "source" "cloud" -}}
{{- else if eq $agent.source "metaserver" -}}
{{- $_ := set $config "source" (dict "kubernetes" (dict "server" "http://127.0.0.1:10550")) -}}
{{- else -}}
{{- $_ := set $config "source" (dict "kubernetes" dict) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $agent.config)) -}}
{{- end -}}

{{/* cloud.yaml */}}
{{- define "edgemesh.cloud-config" -}}
{{- $cloud := .Values.cloud -}}
{{- $config := dict
  "zone" $cloud.zone
  "dataDir" "/var/lib/edgemesh-cloud"
  "hub" (dict "listen" "0.0.0.0:10000" "names" $cloud.hub.names)
  "dns" (dict "domain" .Values.clusterDomain)
  "accessLog" $cloud.accessLog -}}
{{- if eq $cloud.source "none" -}}
{{- $_ := set $config "source" "none" -}}
{{- else -}}
{{- $_ := set $config "source" (dict "kubernetes" dict) -}}
{{- end -}}
{{- $router := $cloud.router -}}
{{- if $router.enabled -}}
{{- $said := dict "listen" (printf "0.0.0.0:%d" (int $router.port)) -}}
{{- if $router.tlsSecret -}}
{{- $_ := set $said "tls" (dict "certFile" "/run/secrets/router-tls/tls.crt" "keyFile" "/run/secrets/router-tls/tls.key") -}}
{{- end -}}
{{- if $router.tokenSecret -}}
{{- $_ := set $said "auth" (dict "tokenFile" "/run/secrets/router-token/token") -}}
{{- else if $router.clientCaSecret -}}
{{- $_ := set $said "auth" (dict "clientCa" "/run/secrets/router-ca/ca.crt") -}}
{{- else -}}
{{- $_ := set $said "auth" $router.auth -}}
{{- end -}}
{{- $_ := set $config "router" $said -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $cloud.config)) -}}
{{- end -}}

{{/* Folders under /run/secrets that the router reads, with the Secret of each. */}}
{{- define "edgemesh.router-secrets" -}}
{{- $router := .Values.cloud.router -}}
{{- $secrets := dict -}}
{{- if $router.enabled -}}
{{- with $router.tlsSecret }}{{ $_ := set $secrets "router-tls" . }}{{ end -}}
{{- with $router.tokenSecret }}{{ $_ := set $secrets "router-token" . }}{{ end -}}
{{- with $router.clientCaSecret }}{{ $_ := set $secrets "router-ca" . }}{{ end -}}
{{- end -}}
{{- toYaml $secrets -}}
{{- end -}}
