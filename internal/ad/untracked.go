package ad

import "strings"

// MatchingRuleInChain is the OID of the matching rule that follows links of links (MS-ADTS
// 3.1.1.3.4.4.3).
const MatchingRuleInChain = "1.2.840.113556.1.4.1941"

// MatchingRuleBitAnd is the OID of the matching rule that requires all bits of a number
// (MS-ADTS 3.1.1.3.4.4.1).
const MatchingRuleBitAnd = "1.2.840.113556.1.4.803"

// IsUntracked reports whether the values of an attribute can change while the object's
// uSNChanged does not. It ignores case. The attribute is a back link, is constructed, or is not
// replicated (MS-ADTS 3.1.1.1.6, 3.1.1.4.5, 3.1.1.1.9).
func IsUntracked(attribute string) bool {
	_, found := untracked[strings.ToLower(attribute)]
	return found
}

// untracked has the attributes of MS-ADA1 to MS-ADA3 with an odd linkID, or with
// FLAG_ATTR_NOT_REPLICATED or FLAG_ATTR_IS_CONSTRUCTED in their systemFlags. It does not have
// those that never change, or only with the object: aNR, createTimeStamp, distinguishedName,
// modifyTimeStamp, objectGUID, structuralObjectClass, uSNChanged, uSNCreated, whenChanged.
var untracked = attributeSet(`
allowedAttributes allowedAttributesEffective allowedChildClasses allowedChildClassesEffective
attributeTypes badPasswordTime badPwdCount bridgeheadServerListBL canonicalName directReports
dITContentRules dSCorePropagationData entryTTL extendedAttributeInfo extendedClassInfo fromEntry
frsComputerReferenceBL fRSMemberReferenceBL isPrivilegeHolder lastLogoff lastLogon logonCount
managedObjects masteredBy memberOf modifiedCount msAuthz-MemberRulesInCentralAccessPolicyBL
msCOM-PartitionSetLink msCOM-UserLink msDFSR-ComputerReferenceBL msDFSR-MemberReferenceBL
msDS-Approx-Immed-Subordinates msDS-AssignedAuthNPolicyBL msDS-AssignedAuthNPolicySiloBL
msDS-AuthenticatedToAccountlist msDS-AuthNPolicySiloMembersBL msDS-Auxiliary-Classes
msDS-BridgeHeadServersUsed msDS-Cached-Membership msDS-Cached-Membership-Time-Stamp
msDS-ClaimSharesPossibleValuesWithBL msDS-ComputerAuthNPolicyBL msDS-EnabledFeatureBL
msDS-ExecuteScriptPassword msDS-GenerationId msDS-HostServiceAccountBL msDS-IsDomainFor
msDS-IsFullReplicaFor msDS-isGC msDS-IsPartialReplicaFor msDS-IsPrimaryComputerFor msDS-isRODC
msDS-IsUserCachableAtRodc msDS-KeyCredentialLink-BL msDS-KeyPrincipalBL msDS-KeyVersionNumber
msDS-KrbTgtLinkBl msDS-LocalEffectiveDeletionTime msDS-LocalEffectiveRecycleTime msDS-ManagedAccountPrecededByLinkBL
msDS-ManagedPassword msDs-masteredBy msDS-MembersForAzRoleBL msDS-MembersOfResourcePropertyListBL
msds-memberOfTransitive msds-memberTransitive msDS-NC-RO-Replica-Locations-BL msDS-NCReplCursors
msDS-NCReplInboundNeighbors msDS-NCReplOutboundNeighbors msDS-NcType msDS-NonMembersBL
msDS-ObjectReferenceBL msDS-OIDToGroupLinkBl msDS-OperationsForAzRoleBL msDS-OperationsForAzTaskBL
msDS-parentdistname msDS-PrincipalName msDS-PSOApplied msDS-QuotaEffective msDS-QuotaUsed
msDS-ReplAttributeMetaData msDS-ReplicationEpoch msDS-ReplValueMetaData msDS-ReplValueMetaDataExt
msDS-ResultantPSO msDS-RetiredReplNCSignatures msDS-RevealedDSAs msDS-RevealedList
msDS-RevealedListBL msDS-ServiceAuthNPolicyBL msDS-SiteName msDS-SupersededManagedAccountLinkBL msDS-TasksForAzRoleBL
msDS-TasksForAzTaskBL msDS-TDOEgressBL msDS-TDOIngressBL msds-tokenGroupNames
msds-tokenGroupNamesGlobalAndUniversal msds-tokenGroupNamesNoGCAcceptable msDS-TopQuotaUsage
msDS-TransformationRulesCompiled msDS-User-Account-Control-Computed msDS-UserAuthNPolicyBL
msDS-UserPasswordExpiryTimeComputed msDS-USNLastSyncSuccess msDS-ValueTypeReferenceBL
msSFU30PosixMemberOf msTPM-TpmInformationForComputerBL msTSPrimaryDesktopBL msTSSecondaryDesktopBL
netbootSCPBL nonSecurityMemberBL objectClasses ownerBL parentGUID partialAttributeDeletionList
partialAttributeSet pekList possibleInferiors prefixMap primaryGroupToken queryPolicyBL
replPropertyMetaData replUpToDateVector repsFrom repsTo rIDNextRID rIDPreviousAllocationPool
schemaUpdate sDRightsEffective serverReferenceBL serverState siteObjectBL subRefs subSchemaSubEntry
tokenGroups tokenGroupsGlobalAndUniversal tokenGroupsNoGCAcceptable uSNLastObjRem`)

func attributeSet(names string) map[string]struct{} {
	set := map[string]struct{}{}
	for name := range strings.FieldsSeq(strings.ToLower(names)) {
		set[name] = struct{}{}
	}
	return set
}
