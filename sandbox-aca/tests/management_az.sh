#!/bin/sh
# Commands of `az`, unchanged, against the emulator; run by management_clients.sh with AZ=1.
set -eu
sub=00000000-0000-0000-0000-000000000000
tenant=$sub
image=r.azurecr.io/x@sha256:$(printf '0%.0s' $(seq 64))
run() { echo "az $*" >&2; az "$@" -o json; }
is() { # is WHAT EXPECTED: compares the input
  found=$(cat)
  [ "$found" = "$2" ] || { echo "$1 is $found, not $2" >&2; exit 1; }
}
run cloud register -n loop --skip-endpoint-discovery --endpoint-resource-manager "$ENDPOINT/" \
  --endpoint-active-directory "$ENDPOINT" \
  --endpoint-active-directory-resource-id https://management.core.windows.net/ \
  --endpoint-management "$ENDPOINT/" --endpoint-gallery "$ENDPOINT/" \
  --endpoint-active-directory-graph-resource-id "$ENDPOINT/" \
  --suffix-acr-login-server-endpoint .azurecr.io > /dev/null
run cloud set -n loop > /dev/null
run login --service-principal -u 11111111-2222-3333-4444-555555555555 -p secret -t $tenant > /dev/null
run containerapp env create -n env -g rg -l westus2 --logs-destination none > /dev/null
run containerapp env show -n env -g rg --query properties.provisioningState | is state '"Succeeded"'
run containerapp env list -g rg --query 'length(@)' | is environments 1
run containerapp env update -n env -g rg --tags a=1 --query tags.a | is tag '"1"'
run containerapp list-usages -l westus2 --query 'length(value)' | is usages 2
run containerapp env list-usages -n env -g rg --query 'length(value)' | is usages 2
run containerapp create -n app1 -g rg --environment env --image "$image" --min-replicas 1 \
  --max-replicas 1 --ingress internal --target-port 80 --secrets k=hidden \
  --env-vars A=1 B=secretref:k --tags owner=t1 --command awk 'BEGIN { print "up"; fflush(); system("sleep 1000") }' > /dev/null
run containerapp show -n app1 -g rg --query properties.configuration.ingress.fqdn \
  | is name '"app1.internal.emulator.azurecontainerapps.io"'
run containerapp list -g rg --query 'length(@)' | is apps 1
run containerapp secret list -n app1 -g rg --show-values --query '[0].value' | is secret '"hidden"'
run containerapp revision list -n app1 -g rg --query '[0].name' | is revision '"app1--0000001"'
run containerapp replica list -n app1 -g rg --revision app1--0000001 --query 'length(@)' | is replicas 1
run containerapp logs show -n app1 -g rg --format text --tail 10 | grep -q up
run containerapp update -n app1 -g rg --set-env-vars A=2 > /dev/null
run containerapp revision list -n app1 -g rg --query 'length(@)' | is revisions 1
run containerapp ingress access-restriction set -n app1 -g rg --rule-name gw --ip-address 10.0.0.0/24 \
  --action Allow > /dev/null
run containerapp revision restart -n app1 -g rg --revision app1--0000002 > /dev/null
run rest --method post --url "$ENDPOINT/subscriptions/$sub/resourceGroups/rg/providers/Microsoft.App/containerApps/app1/stop?api-version=2026-07-01" > /dev/null
run containerapp show -n app1 -g rg --query properties.runningStatus | is status '"Stopped"'
puller=/subscriptions/$sub/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller
run containerapp secret set -n app1 -g rg --secrets j=other --query 'length(@)' | is secrets 2
run containerapp secret show -n app1 -g rg --secret-name j --query value | is secret '"other"'
run containerapp secret remove -n app1 -g rg --secret-names j --query 'length(@)' | is secrets 1
run containerapp ingress update -n app1 -g rg --target-port 8080 --query targetPort | is port 8080
run containerapp ingress show -n app1 -g rg --query targetPort | is port 8080
run containerapp ingress access-restriction list -n app1 -g rg --query '[0].name' | is restriction '"gw"'
run containerapp identity assign -n app1 -g rg --user-assigned "$puller" > /dev/null
run containerapp identity show -n app1 -g rg --query type | is identity '"UserAssigned"'
run containerapp registry set -n app1 -g rg --server r.azurecr.io --identity "$puller" > /dev/null
run containerapp registry list -n app1 -g rg --query '[0].identity' | is puller "\"$puller\""
client=11111111-2222-3333-4444-555555555555
run containerapp auth microsoft update -n app1 -g rg --client-id $client \
  --issuer https://sts.windows.net/$tenant/ --yes > /dev/null
run containerapp auth show -n app1 -g rg \
  --query identityProviders.azureActiveDirectory.registration.clientId | is client "\"$client\""
run containerapp revision set-mode -n app1 -g rg --mode multiple | is mode '"multiple"'
run containerapp revision deactivate -n app1 -g rg --revision app1--0000002 > /dev/null
run containerapp revision show -n app1 -g rg --revision app1--0000002 --query properties.active | is active false
run containerapp revision activate -n app1 -g rg --revision app1--0000002 > /dev/null
run containerapp revision copy -n app1 -g rg --from-revision app1--0000002 --revision-suffix new > /dev/null
run containerapp ingress traffic show -n app1 -g rg --query '[0].latestRevision' | is newest true
run containerapp ingress traffic set -n app1 -g rg --revision-weight app1--0000002=80 latest=20 \
  --query 'length(@)' | is shares 2
run containerapp revision label add -n app1 -g rg --revision app1--0000002 --label old --yes \
  --query "[?label=='old'].revisionName | [0]" | is labelled '"app1--0000002"'
run containerapp revision show -n app1 -g rg --revision app1--0000002 --query properties.trafficWeight | is share 80
run containerapp revision label add -n app1 -g rg --revision app1--new --label new --yes > /dev/null
run containerapp revision label swap -n app1 -g rg --source old --target new > /dev/null
run containerapp ingress traffic show -n app1 -g rg --query "[?label=='old'].revisionName | [0]" | is labelled '"app1--new"'
run containerapp revision label remove -n app1 -g rg --label old > /dev/null
run containerapp ingress traffic show -n app1 -g rg --query "length([?label=='old'])" | is labels 0
run containerapp job create -n job1 -g rg --environment env --trigger-type Manual --image "$image" \
  --replica-timeout 60 --replica-retry-limit 0 --parallelism 1 --replica-completion-count 1 --command false > /dev/null
run containerapp job update -n job1 -g rg --replica-timeout 90 \
  --query properties.configuration.replicaTimeout | is timeout 90
run containerapp job show -n job1 -g rg --query properties.configuration.replicaTimeout | is timeout 90
run containerapp job list -g rg --query 'length(@)' | is jobs 1
run containerapp job secret set -n job1 -g rg --secrets a=b --query 'length(@)' | is secrets 1
execution=$(run containerapp job start -n job1 -g rg --query name | tr -d '"')
run containerapp job execution show -n job1 -g rg --job-execution-name "$execution" --query name \
  | is execution "\"$execution\""
run containerapp job execution list -n job1 -g rg --query 'length(@)' | is executions 1
run containerapp job stop -n job1 -g rg --job-execution-name "$execution" > /dev/null
run role definition list --name AcrPull --query '[0].roleName' | is role '"AcrPull"'
assignment=$(run role assignment create --role 'Azure ContainerApps Session Executor' \
  --assignee-object-id 11111111-2222-3333-4444-555555555555 \
  --assignee-principal-type ServicePrincipal --scope "/subscriptions/$sub/resourceGroups/rg" --query id | tr -d '"')
run role assignment delete --ids "$assignment" > /dev/null
# `az containerapp sessionpool` is of an extension, which is on no registry of packages.
pool=$ENDPOINT/subscriptions/$sub/resourceGroups/rg/providers/Microsoft.App/sessionPools/pool1?api-version=2025-10-02-preview
run rest --method put --url "$pool" --body '{"location": "westus2", "properties": {"poolManagementType": "Dynamic",
  "containerType": "Shell", "scaleConfiguration": {"maxConcurrentSessions": 5}, "dynamicPoolConfiguration":
  {"lifecycleConfiguration": {"lifecycleType": "Timed", "cooldownPeriodInSeconds": 300}}}}' > /dev/null
run rest --method get --url "$pool" --query properties.containerType | is kind '"Shell"'
run rest --method patch --url "$pool" --body '{"tags": {"a": "1"}}' > /dev/null
run rest --method get --url "$pool" --query tags.a | is tag '"1"'
run resource list --query "length([?name=='pool1'])" | is pools 1
run rest --method delete --url "$pool" > /dev/null
run acr check-name -n images1 --query nameAvailable | is available true
run acr create -n images1 -g rg --sku Basic --tags a=1 --query loginServer | is server '"images1.azurecr.io"'
run acr check-name -n images1 --query reason | is reason '"AlreadyExists"'
run acr show -n images1 --query sku.name | is size '"Basic"'
run acr update -n images1 --tags b=2 --query tags.b | is tag '"2"'
run acr list -g rg --query 'length(@)' | is registries 1
run acr delete -n images1 --yes
run acr list --query 'length(@)' | is registries 0
run resource list --tag owner=t1 --query 'length(@)' | is resources 1
run containerapp job delete -n job1 -g rg --yes > /dev/null
run containerapp delete -n app1 -g rg --yes > /dev/null
run containerapp env delete -n env -g rg --yes > /dev/null
echo "az $(az version --query '"azure-cli"' -o tsv): environments, an app, a job, a role, a registry"
